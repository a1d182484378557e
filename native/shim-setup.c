#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "io.h"

/* What a shim takes hold of before it says READY, and how it lets go of it: lock, ports, files, streams, mounts. */

#define LOCK_WAIT_MS 5000

int fail(struct failure *failure, const char *stage, const char *subject)
{
	failure->number = errno;
	failure->stage = stage;
	snprintf(failure->text, sizeof failure->text, "%s %s: %s", stage, subject, strerror(errno));
	return -1;
}

/*
 * One shim a container: the lock on its state directory ends with the shim, so that a shim which is still cleaning up
 * after the previous run never meets the next one.
 */
static int lock_state(struct failure *failure)
{
	int64_t deadline = monotonic_ms() + LOCK_WAIT_MS;
	while (flock(shim.state_dir, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK || monotonic_ms() > deadline)
			return fail(failure, "lock", shim.launch.state_dir);
		usleep(1000);
	}
	shim.locked = true;
	return 0;
}

static int listen_here(struct failure *failure)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "shim.sock" };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail(failure, "socket", "");
	unlinkat(shim.run_dir, "shim.sock", 0);
	umask(0177);
	/* Relative: a run directory's path may be longer than a socket address takes. */
	int result = fchdir(shim.run_dir) == 0 ? bind(fd, (struct sockaddr *)&address, sizeof address) : -1;
	umask(022);
	if (chdir("/") < 0 || result < 0 || listen(fd, 64) < 0)
		return fail(failure, "listen on", "shim.sock");
	watch_init(&shim.listener, fd, connection_accept);
	watch_for(&shim.listener, EPOLLIN);
	return 0;
}

/* What a later daemon needs to clean up when this process was killed: read by shim-remains.ts. */
static int write_info(struct failure *failure)
{
	char text[8192];
	int length = snprintf(text, sizeof text, "skiff-shim 1\nshimPid %d\ncgroupPath %s\nruntimeRoot %s\nend\n",
			      (int)getpid(), shim.launch.cgroup_path, shim.launch.runtime_root);
	int fd = openat(shim.run_dir, "shim.info", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || length >= (int)sizeof text || write_full(fd, text, (size_t)length) < 0)
		return fail(failure, "write", "shim.info");
	close(fd);
	return 0;
}

static void streams_changed(struct stdio *stdio)
{
	(void)stdio;
	shim_review_soon();
}

static int set_up_streams(struct failure *failure)
{
	const struct launch *launch = &shim.launch;
	bool log = (launch->flags & LAUNCH_LOG_JSON) != 0;
	bool terminal = (launch->flags & LAUNCH_TERMINAL) != 0;
	if (log)
		json_log_open(&shim.log, launch->log_path, launch->log_attrs != NULL ? launch->log_attrs : "",
			      launch->log_bytes_max, (unsigned)launch->log_files_max);
	stdio_init(&shim.io, terminal, (launch->flags & LAUNCH_STDIN_ONCE) != 0, log ? &shim.log : NULL,
		   streams_changed);
	if (!terminal && stdio_open_pipes(&shim.io, (launch->flags & LAUNCH_OPEN_STDIN) != 0, shim.child_fds) < 0)
		return fail(failure, "pipe", "");
	return 0;
}

int shim_set_up(struct failure *failure)
{
	const struct launch *launch = &shim.launch;
	shim.run_dir = open(launch->run_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (shim.run_dir < 0)
		return fail(failure, "open", launch->run_dir);
	shim.state_dir = open(launch->state_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (shim.state_dir < 0)
		return fail(failure, "open", launch->state_dir);
	if (lock_state(failure) < 0 || ports_reserve(&launch->ports, failure) < 0)
		return -1;
	/* A record always belongs to the run that was launched last. */
	if ((launch->flags & LAUNCH_FILES_ONLY) == 0)
		unlinkat(shim.state_dir, "exit", 0);
	if (write_info(failure) < 0 || listen_here(failure) < 0 || set_up_streams(failure) < 0)
		return -1;
	return rootfs_mount(launch, shim.run_dir, failure);
}

static void remove_files(void)
{
	static const char *const names[] = { "shim.sock",   "console.sock", "container.pid", "runtime.log",
					     "runtime.err", "shim.info" };
	for (size_t i = 0; i < array_length(names); i++)
		unlinkat(shim.run_dir, names[i], 0);
}

void shim_tear_down(void)
{
	if (shim.torn_down || !shim.locked)
		return;
	shim.torn_down = true;
	watch_close(&shim.listener);
	rootfs_unmount(shim.run_dir);
	remove_files();
	if (shim.io.log != NULL)
		json_log_close(&shim.log);
	close(shim.run_dir);
	close(shim.state_dir);
}
