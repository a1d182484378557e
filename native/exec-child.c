#include "exec-child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <unistd.h>

#include "cgroup.h"
#include "frame.h"
#include "io.h"

/*
 * The exec's process on its way into the container. From the moment it can be seen from inside it is not dumpable, so that
 * nobody there reads its memory or opens its descriptors or program through /proc; what it still needs from outside
 * (the seccomp filter, the host's /proc) it has read or opened before, and it holds nothing but 0, 1, 2 and one
 * socket when it first resolves a path that the container controls.
 */

#define FILTER_MAX (4096 * sizeof(struct sock_filter))
#define STATUS_FD 3

static int status_fd;

static _Noreturn void give_up(enum exec_stage stage, int number, const char *text)
{
	struct exec_status status = { .message = EXEC_ERROR, .value = number, .stage = (int32_t)stage };
	snprintf(status.text, sizeof status.text, "%s", text);
	if (send(status_fd, &status, sizeof status, MSG_NOSIGNAL) < 0)
		_exit(126);
	_exit(127);
}

static void send_descriptor(int fd)
{
	struct exec_status status = { .message = EXEC_CONSOLE };
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec part = { &status, sizeof status };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = sizeof control };
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
	if (sendmsg(status_fd, &message, MSG_NOSIGNAL) < 0)
		give_up(EXEC_STAGE_CONSOLE, errno, "send terminal");
}

static bool same_namespace(pid_t leader, const char *name)
{
	char mine[64], theirs[64];
	struct stat own, other;
	snprintf(mine, sizeof mine, "/proc/self/ns/%s", name);
	snprintf(theirs, sizeof theirs, "/proc/%d/ns/%s", (int)leader, name);
	return stat(mine, &own) == 0 && stat(theirs, &other) == 0 && own.st_ino == other.st_ino;
}

static void join_namespaces(const struct exec_request *request)
{
	int kinds = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID;
	if (!same_namespace(request->leader, "cgroup"))
		kinds |= CLONE_NEWCGROUP;
	/* Joining one's own user namespace again is an error. */
	if (!same_namespace(request->leader, "user"))
		kinds |= CLONE_NEWUSER;
	if (syscall(SYS_setns, request->leader_pidfd, kinds) < 0)
		give_up(EXEC_STAGE_JOIN, errno, "setns");
}

static size_t read_filter(const char *path, struct sock_filter *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		give_up(EXEC_STAGE_IDENTITY, errno, "open seccomp filter");
	size_t used = 0;
	ssize_t n;
	while (used < FILTER_MAX && (n = read(fd, (char *)out + used, FILTER_MAX - used)) > 0)
		used += (size_t)n;
	close(fd);
	if (used == 0 || used % sizeof(struct sock_filter) != 0)
		give_up(EXEC_STAGE_IDENTITY, EINVAL, "seccomp filter");
	return used / sizeof(struct sock_filter);
}

static void set_limits(const struct exec_request *request)
{
	for (int kind = 0; kind < 16; kind++) {
		struct rlimit now;
		const struct rlimit *wanted = &request->limits[kind];
		if (getrlimit(kind, &now) == 0 && (now.rlim_cur != wanted->rlim_cur || now.rlim_max != wanted->rlim_max))
			setrlimit(kind, wanted);
	}
	if (request->has_oom_score) {
		char text[24];
		snprintf(text, sizeof text, "%lld", (long long)request->oom_score);
		write_existing_file(AT_FDCWD, "/proc/self/oom_score_adj", text);
	}
}

/*
 * The container's /dev/ptmx is a name the container controls: only the kernel's own device is taken, and the slave is
 * opened through the master, not by a path.
 */
static void open_console(const struct exec_request *request)
{
	int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	struct stat info;
	if (master < 0)
		give_up(EXEC_STAGE_CONSOLE, errno, "open /dev/ptmx");
	if (fstat(master, &info) < 0 || !S_ISCHR(info.st_mode) || info.st_rdev != makedev(5, 2))
		give_up(EXEC_STAGE_CONSOLE, ENODEV, "open /dev/ptmx");
	int unlocked = 0;
	if (ioctl(master, TIOCSPTLCK, &unlocked) < 0)
		give_up(EXEC_STAGE_CONSOLE, errno, "unlock terminal");
	struct winsize size = { .ws_row = (unsigned short)request->rows, .ws_col = (unsigned short)request->columns };
	if (request->rows != 0 || request->columns != 0)
		ioctl(master, TIOCSWINSZ, &size);
	int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
	if (slave < 0)
		give_up(EXEC_STAGE_CONSOLE, errno, "open terminal");
	if (fchown(slave, (uid_t)request->uid, (gid_t)-1) < 0 && errno != EPERM && errno != EROFS && errno != EINVAL)
		give_up(EXEC_STAGE_CONSOLE, errno, "chown terminal");
	send_descriptor(master);
	close(master);
	for (int i = 0; i < 3; i++)
		dup2(slave, i);
	if (slave > 2)
		close(slave);
	if (ioctl(0, TIOCSCTTY, 0) < 0)
		give_up(EXEC_STAGE_CONSOLE, errno, "controlling terminal");
}

static void set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	for (int i = 0; i < 2; i++) {
		data[i].effective = (uint32_t)(effective >> (32 * i));
		data[i].permitted = (uint32_t)(permitted >> (32 * i));
		data[i].inheritable = (uint32_t)(inheritable >> (32 * i));
	}
	if (syscall(SYS_capset, &header, data) < 0)
		give_up(EXEC_STAGE_IDENTITY, errno, "capset");
}

static uint64_t own_permitted(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };
	if (syscall(SYS_capget, &header, data) < 0)
		give_up(EXEC_STAGE_IDENTITY, errno, "capget");
	return (uint64_t)data[0].permitted | (uint64_t)data[1].permitted << 32;
}

static void load_filter(struct sock_filter *filter, size_t count)
{
	struct sock_fprog program = { .len = (unsigned short)count, .filter = filter };
	if (count > 0 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		give_up(EXEC_STAGE_IDENTITY, errno, "seccomp");
}

static void raise_ambient(uint64_t ambient)
{
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (int cap = 0; cap < 64; cap++)
		if ((ambient >> cap & 1) != 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			give_up(EXEC_STAGE_IDENTITY, errno, "ambient capabilities");
}

/*
 * Order: what needs privileges first. Without no_new_privs a filter needs CAP_SYS_ADMIN, so it is loaded while the full
 * set is still there; after it come only the final capset, the ambient set, chdir and execve.
 */
static void take_identity(const struct exec_request *request, struct sock_filter *filter, size_t filter_count)
{
	for (int cap = 0; cap < 64; cap++)
		if ((request->bounding >> cap & 1) == 0 && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1 &&
		    prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			give_up(EXEC_STAGE_IDENTITY, errno, "bounding capabilities");
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		give_up(EXEC_STAGE_IDENTITY, errno, "keepcaps");
	if (setgroups(request->group_count, request->groups) < 0)
		give_up(EXEC_STAGE_IDENTITY, errno, "setgroups");
	gid_t gid = (gid_t)request->gid;
	uid_t uid = (uid_t)request->uid;
	if (setresgid(gid, gid, gid) < 0)
		give_up(EXEC_STAGE_IDENTITY, errno, "setgid");
	if (setresuid(uid, uid, uid) < 0)
		give_up(EXEC_STAGE_IDENTITY, errno, "setuid");
	prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
	/* A change of user clears the effective set; the permitted one was kept. */
	uint64_t all = own_permitted();
	set_capabilities(all, all, request->inheritable & all);
	if ((request->flags & EXEC_NO_NEW_PRIVILEGES) != 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		give_up(EXEC_STAGE_IDENTITY, errno, "no_new_privs");
	load_filter(filter, filter_count);
	/* A capability that the shim itself lacks cannot be given; the daemon has warned about it. */
	uint64_t permitted = request->permitted & all;
	set_capabilities(request->effective & permitted, permitted, request->inheritable & all);
	raise_ambient(request->ambient & permitted & request->inheritable);
}

static void enter_cwd(const struct exec_request *request)
{
	const char *cwd = request->cwd[0] != 0 ? request->cwd : "/";
	if (chdir(cwd) < 0)
		give_up(EXEC_STAGE_CWD, errno, cwd);
	/* A directory outside the root has no path: the kernel says "(unreachable)". */
	char path[4096];
	if (syscall(SYS_getcwd, path, sizeof path) < 0 || path[0] != '/')
		give_up(EXEC_STAGE_CWD, ENOENT, cwd);
}

/* Go's exec.LookPath, whose errors Docker's clients know: a directory or a file without any x bit is not permitted. */
static int check_program(const char *path)
{
	struct stat info;
	if (stat(path, &info) < 0)
		return errno;
	return S_ISDIR(info.st_mode) || (info.st_mode & 0111) == 0 ? EACCES : 0;
}

static const char *find_program(const struct exec_request *request, char *out, size_t size)
{
	const char *name = request->arguments[0], *path = "";
	if (strchr(name, '/') != NULL) {
		int failed = check_program(name);
		if (failed != 0)
			give_up(EXEC_STAGE_LOOKUP, failed, failed == EACCES ? "" : "stat");
		return name;
	}
	for (size_t i = 0; i < request->environment_count; i++)
		if (strncmp(request->environment[i], "PATH=", 5) == 0)
			path = request->environment[i] + 5;
	while (name[0] != 0 && *path != 0) {
		size_t length = strcspn(path, ":");
		if (length > 0 && snprintf(out, size, "%.*s/%s", (int)length, path, name) < (int)size &&
		    check_program(out) == 0)
			return out;
		path += length + (path[length] == ':');
	}
	give_up(EXEC_STAGE_LOOKUP, ENOENT, "");
}

/* Takes effect at execve. Through the host's /proc: the container's own may be something else. */
static void set_apparmor(const struct exec_request *request, int host_proc)
{
	char text[512];
	snprintf(text, sizeof text, "exec %s", request->apparmor);
	if (write_existing_file(host_proc, "self/attr/apparmor/exec", text) < 0 &&
	    write_existing_file(host_proc, "self/attr/exec", text) < 0)
		give_up(EXEC_STAGE_IDENTITY, errno, "AppArmor profile");
}

static _Noreturn void run(const struct exec_request *request, struct sock_filter *filter, size_t filter_count,
			  int host_proc)
{
	/* Only 0, 1, 2 and the status socket from here on: no descriptor leads out of the container. */
	if ((request->flags & EXEC_TERMINAL) == 0)
		for (int i = 0; i < 3; i++)
			dup2(request->stdio[i], i);
	if (host_proc >= 0)
		set_apparmor(request, host_proc);
	if (status_fd != STATUS_FD) {
		dup2(status_fd, STATUS_FD);
		status_fd = STATUS_FD;
	}
	fcntl(STATUS_FD, F_SETFD, FD_CLOEXEC);
	close_from(STATUS_FD + 1);
	setsid();
	if ((request->flags & EXEC_TERMINAL) != 0)
		open_console(request);
	umask(022);
	reset_signals();
	take_identity(request, filter, filter_count);
	enter_cwd(request);
	char found[4096];
	const char *program = find_program(request, found, sizeof found);
	execve(program, request->arguments, request->environment);
	int failed = errno;
	/* As the runtimes do: what execve itself refuses (a format, a missing interpreter) is said on the process's stderr. */
	dprintf(2, "exec %s: %s\n", program,
		failed == ENOENT  ? "no such file or directory" :
		failed == ENOEXEC ? "exec format error" :
		failed == EACCES  ? "permission denied" :
				    strerror(failed));
	_exit(failed == EACCES ? 126 : 1);
}

/* clone(CLONE_PARENT): the new process is the shim's child, which can wait for it, and not this one's. */
static pid_t clone_sibling(void)
{
#if defined(__s390__)
	return (pid_t)syscall(SYS_clone, 0, CLONE_PARENT | SIGCHLD);
#else
	return (pid_t)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
#endif
}

_Noreturn void exec_child(const struct exec_request *request, int status)
{
	static struct sock_filter filter[FILTER_MAX / sizeof(struct sock_filter)];
	size_t filter_count = 0;
	status_fd = status;
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (request->seccomp_path != NULL)
		filter_count = read_filter(request->seccomp_path, filter);
	int host_proc = request->apparmor != NULL ? open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	if (cgroup_join(request->cgroup_path, request->leader) < 0)
		give_up(EXEC_STAGE_JOIN, errno, "join cgroup");
	set_limits(request);
	join_namespaces(request);
	/* The process waits until the shim can know its pid, so that it is never reaped as a stranger. */
	int go[2];
	if (pipe2(go, O_CLOEXEC) < 0)
		give_up(EXEC_STAGE_JOIN, errno, "pipe");
	pid_t pid = clone_sibling();
	if (pid < 0)
		give_up(EXEC_STAGE_JOIN, errno, "clone");
	if (pid == 0) {
		char byte;
		close(go[1]);
		if (read(go[0], &byte, 1) != 1)
			_exit(127);
		run(request, filter, filter_count, host_proc);
	}
	struct exec_status message = { .message = EXEC_PID, .value = pid };
	if (send(status_fd, &message, sizeof message, MSG_NOSIGNAL) < 0 || write(go[1], "", 1) != 1) {
		kill(pid, SIGKILL);
		_exit(1);
	}
	_exit(0);
}
