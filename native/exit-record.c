#include "shim.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io.h"

/*
 * The exit record outlives everything: one `name value` a line, the version first, `end` last, so that a part of one is
 * told from a whole. One fsync: the rename is ordered behind the data by the file system's journal.
 */
int exit_record_write(int state_dir, const struct exit_status *status)
{
	char text[512];
	int length = snprintf(text, sizeof text,
			      "skiff-exit 1\nexitCode %d\nstartedAtNs %llu\nfinishedAtNs %llu\noomKilled %d\n"
			      "droppedLogLines %llu\nend\n",
			      status->code, (unsigned long long)status->started_ns,
			      (unsigned long long)status->finished_ns, status->oom_killed,
			      (unsigned long long)status->dropped_lines);
	int fd = openat(state_dir, "exit.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -1;
	bool written = write_full(fd, text, (size_t)length) == 0 && fsync(fd) == 0;
	close(fd);
	if (!written || renameat(state_dir, "exit.tmp", state_dir, "exit") < 0) {
		unlinkat(state_dir, "exit.tmp", 0);
		return -1;
	}
	return 0;
}
