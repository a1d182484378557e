#include "roles.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "cgroup.h"
#include "io.h"
#include "shim.h"

/*
 * The launcher: `skiff-native launcher <directory> <socket name> <cgroup> [runtime]...`
 *
 * It accepts connections on a socket in the exec root and forks: the accepted connection is the control channel of a
 * shim. It holds no state, so it may die at any time; shims do not notice. It runs from a sealed copy of itself in memory, so
 * that what a shim leaves in a container's sight (/proc/<pid>/exe during an exec) is not the file on the host's disk.
 * When its socket's name is taken away or given to another launcher, nobody can reach it any more, and it ends.
 */

static struct stat own_socket;
const char *launcher_cgroup = "";
static char *title_start, *title_end;

static int die(const char *what)
{
	dprintf(2, "skiff launcher: %s: %s\n", what, strerror(errno));
	return 1;
}

/* Returns only when there is no sealed copy to run or it already runs. */
static void run_sealed(char **argv)
{
	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat info;
	if (self < 0 || fcntl(self, F_GET_SEALS) > 0 || fstat(self, &info) < 0) {
		if (self >= 0)
			close(self);
		return;
	}
	int copy = memfd_create("skiff-native", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	off_t left = copy < 0 ? 1 : info.st_size;
	ssize_t n = 0;
	while (copy >= 0 && left > 0 && (n = sendfile(copy, self, NULL, (size_t)left)) > 0)
		left -= n;
	close(self);
	if (left == 0 && fchmod(copy, 0500) == 0 &&
	    fcntl(copy, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0)
		syscall(SYS_execveat, copy, "", argv, environ, AT_EMPTY_PATH);
	if (copy >= 0)
		close(copy);
}

/* Under a temporary name first: the socket's own name never stands for one that does not listen. */
static int listen_on(const char *directory, const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strchr(name, '/') != NULL ||
	    snprintf(address.sun_path, sizeof address.sun_path, "%s.%d", name, (int)getpid()) >=
		    (int)sizeof address.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || chdir(directory) < 0)
		return -1;
	unlink(address.sun_path);
	umask(0177);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 512) < 0 ||
	    stat(address.sun_path, &own_socket) < 0 || rename(address.sun_path, name) < 0)
		return -1;
	umask(022);
	return fd;
}

static bool still_mine(const char *name)
{
	struct stat now;
	return stat(name, &now) == 0 && now.st_ino == own_socket.st_ino && now.st_dev == own_socket.st_dev;
}

void process_rename(const char *title)
{
	/* The arguments' own space, which is contiguous; what is left of it is cleared. */
	size_t room = (size_t)(title_end - title_start);
	memset(title_start, 0, room);
	snprintf(title_start, room, "%s", title);
}

static void serve(int listener, int watch)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	struct ucred peer;
	socklen_t size = sizeof peer;
	bool allowed = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
		       (peer.uid == 0 || peer.uid == geteuid());
	if (allowed && fork() == 0) {
		close(listener);
		if (watch >= 0)
			close(watch);
		if (chdir("/") < 0)
			_exit(1);
		shim_main(fd);
	}
	close(fd);
}

static _Noreturn void run(int listener, const char *name)
{
	int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (watch >= 0)
		inotify_add_watch(watch, name, IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF);
	struct pollfd fds[2] = { { .fd = listener, .events = POLLIN }, { .fd = watch, .events = POLLIN } };
	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			_exit(1);
		if ((fds[1].revents & POLLIN) != 0) {
			char events[4096];
			while (read(watch, events, sizeof events) > 0)
				;
			if (!still_mine(name))
				_exit(0);
		}
		if ((fds[0].revents & POLLIN) != 0)
			serve(listener, watch);
	}
}

int launcher_main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: skiff-native launcher <directory> <socket name> <cgroup> [runtime]...\n");
		return 2;
	}
	run_sealed(argv - 1);
	const char *directory = argv[1], *name = argv[2], *cgroup = argv[3];
	close_from(3);
	setsid();
	prctl(PR_SET_NAME, "skiff-launcher", 0, 0, 0);
	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	cgroup_discover();
	if (cgroup_path_valid(cgroup)) {
		cgroup_make(cgroup);
		if (cgroup_join(cgroup, 0) < 0)
			return die("join cgroup");
		launcher_cgroup = must_copy(cgroup);
	}
	for (int i = 4; i < argc; i++)
		sealed_copy_prepare(argv[i]);
	char *socket_name = must_copy(name);
	title_start = argv[-1];
	title_end = argv[argc - 1] + strlen(argv[argc - 1]);
	int listener = listen_on(directory, socket_name);
	if (listener < 0)
		return die("listen");
	/* The daemon waits for this line; afterwards nothing of its descriptors stays open here. */
	if (write(1, "ready\n", 6) != 6)
		return 1;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < 3; i++)
		dup2(null, i);
	close(null);
	run(listener, socket_name);
}
