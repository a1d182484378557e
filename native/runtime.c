#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "io.h"

/*
 * A sealed copy of a runtime's program in memory: a container cannot overwrite it through /proc/self/exe, and crun, which
 * would copy itself at every start otherwise, sees the seals and does not. The launcher makes it once, shims inherit it.
 */
#define SEALED_MAX 4

static struct {
	char path[512];
	struct stat origin;
	int fd;
} sealed[SEALED_MAX];
static size_t sealed_count;

static int copy_sealed(const char *path, struct stat *origin)
{
	int from = open(path, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return -1;
	int to = memfd_create("skiff-runtime", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	bool whole = to >= 0 && fstat(from, origin) == 0 && S_ISREG(origin->st_mode);
	off_t left = whole ? origin->st_size : 0;
	while (left > 0) {
		ssize_t n = sendfile(to, from, NULL, (size_t)left);
		if (n <= 0)
			break;
		left -= n;
	}
	close(from);
	int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	if (whole && left == 0 && fchmod(to, 0500) == 0 && fcntl(to, F_ADD_SEALS, seals) == 0)
		return to;
	if (to >= 0)
		close(to);
	return -1;
}

void sealed_copy_prepare(const char *path)
{
	if (sealed_count == SEALED_MAX || strlen(path) >= sizeof sealed[0].path)
		return;
	int fd = copy_sealed(path, &sealed[sealed_count].origin);
	if (fd < 0)
		return;
	strcpy(sealed[sealed_count].path, path);
	sealed[sealed_count++].fd = fd;
}

int sealed_copy_for(const char *path)
{
	for (size_t i = 0; i < sealed_count; i++) {
		struct stat now;
		const struct stat *then = &sealed[i].origin;
		if (strcmp(sealed[i].path, path) == 0 && stat(path, &now) == 0 && now.st_ino == then->st_ino &&
		    now.st_dev == then->st_dev && now.st_size == then->st_size &&
		    now.st_mtim.tv_sec == then->st_mtim.tv_sec && now.st_mtim.tv_nsec == then->st_mtim.tv_nsec)
			return sealed[i].fd;
	}
	return -1;
}

static void console_connection(struct watch *watch, uint32_t events)
{
	struct shim *self = container_of(watch, struct shim, console);
	(void)events;
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	/* The runtime sends the terminal's name with its master and waits for nothing. */
	char name[256];
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = { name, sizeof name };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = sizeof control };
	struct timeval patience = { .tv_sec = 2 };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC) > 0) {
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
		    header->cmsg_len == CMSG_LEN(sizeof(int))) {
			int master;
			memcpy(&master, CMSG_DATA(header), sizeof master);
			stdio_set_console(&self->io, master);
		}
	}
	close(fd);
	watch_close(watch);
}

void runtime_take_console(struct shim *self)
{
	if (self->console.fd >= 0)
		console_connection(&self->console, EPOLLIN);
	watch_close(&self->console);
}

static int console_listen(struct shim *self)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "console.sock" };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	unlinkat(self->run_dir, "console.sock", 0);
	/* Relative to the run directory: a path of one's own choice may be longer than a socket address takes. */
	int result = fchdir(self->run_dir) == 0 ? bind(fd, (struct sockaddr *)&address, sizeof address) : -1;
	if (chdir("/") < 0 || result < 0 || listen(fd, 1) < 0) {
		close(fd);
		return -1;
	}
	watch_init(&self->console, fd, console_connection);
	watch_for(&self->console, EPOLLIN);
	return 0;
}

static _Noreturn void run_runtime(const struct shim *self, const int stdio[3], char **arguments)
{
	static char *const environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	const char *path = self->launch.runtime_path;
	int copy = sealed_copy_for(path);
	for (int i = 0; i < 3; i++)
		dup2(stdio[i], i);
	if (copy >= 0) {
		dup2(copy, 3);
		fcntl(3, F_SETFD, FD_CLOEXEC);
	}
	close_from(copy >= 0 ? 4 : 3);
	reset_signals();
	if (copy >= 0)
		syscall(SYS_execveat, 3, "", arguments, environment, AT_EMPTY_PATH);
	execve(path, arguments, environment);
	dprintf(2, "cannot run the OCI runtime %s: %s\n", path, strerror(errno));
	_exit(127);
}

static size_t build_arguments(const struct launch *launch, const char **out)
{
	size_t n = 0;
	out[n++] = launch->runtime_path;
	for (size_t i = 0; i < launch->runtime_arguments.count; i++)
		out[n++] = launch->runtime_arguments.items[i];
	static const char *const fixed[] = { "--log", "runtime.log", "run", "--detach" };
	out[n++] = "--root";
	out[n++] = launch->runtime_root;
	for (size_t i = 0; i < array_length(fixed); i++)
		out[n++] = fixed[i];
	out[n++] = "--bundle";
	out[n++] = launch->run_dir;
	out[n++] = "--pid-file";
	out[n++] = "container.pid";
	if ((launch->flags & LAUNCH_TERMINAL) != 0) {
		out[n++] = "--console-socket";
		out[n++] = "console.sock";
	}
	out[n++] = launch->id;
	out[n] = NULL;
	return n;
}

int runtime_start(struct shim *self, struct failure *failure)
{
	bool terminal = (self->launch.flags & LAUNCH_TERMINAL) != 0;
	int stdio[3] = { self->child_fds[0], self->child_fds[1], self->child_fds[2] };
	unlinkat(self->run_dir, "container.pid", 0);
	unlinkat(self->run_dir, "runtime.log", 0);
	if (terminal) {
		/* The container has its terminal; the runtime's own words go to a file of their own. */
		stdio[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
		stdio[1] = stdio[0];
		stdio[2] = openat(self->run_dir, "runtime.err", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	}
	if ((terminal && console_listen(self) < 0) || stdio[0] < 0 || stdio[2] < 0) {
		failure->number = errno;
		failure->stage = "console";
		snprintf(failure->text, sizeof failure->text, "console socket: %s", strerror(errno));
		return -1;
	}
	const char **arguments = must_allocate((self->launch.runtime_arguments.count + 24) * sizeof *arguments);
	build_arguments(&self->launch, arguments);
	self->runtime_pid = fork();
	if (self->runtime_pid == 0) {
		if (fchdir(self->run_dir) < 0)
			_exit(127);
		run_runtime(self, stdio, (char **)(uintptr_t)arguments);
	}
	free(arguments);
	if (terminal) {
		close(stdio[0]);
		close(stdio[2]);
	}
	if (self->runtime_pid > 0)
		return 0;
	failure->number = errno;
	failure->stage = "fork";
	snprintf(failure->text, sizeof failure->text, "fork: %s", strerror(errno));
	return -1;
}

pid_t runtime_read_pid(const struct shim *self)
{
	char text[32];
	if (read_small_file(self->run_dir, "container.pid", text, sizeof text) <= 0)
		return -1;
	int pid = atoi(text);
	return pid > 1 ? pid : -1;
}

void runtime_read_error(const struct shim *self, char *out, size_t size)
{
	if (read_small_file(self->run_dir, "runtime.log", out, size) > 0)
		return;
	if (read_small_file(self->run_dir, "runtime.err", out, size) > 0)
		return;
	int fd = self->io.out[1].fd;
	ssize_t n = fd >= 0 ? read(fd, out, size - 1) : 0;
	out[n > 0 ? n : 0] = 0;
}

void runtime_remove_state(const struct launch *launch)
{
	int root = open(launch->runtime_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return;
	remove_tree_at(root, launch->id);
	close(root);
}
