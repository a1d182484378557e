/*
 * Runs inside a container and tries what it should not be able to do. `probe <name>...` prints `<name> <result>` a line:
 * `ok`, the name of an errno, or a fact. Attempts aim at nothing real, so that success harms nobody.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static long raw(long number, long a, long b, long c, long d, long e)
{
	return syscall(number, a, b, c, d, e);
}

/* Forks by clone with flags; the child leaves at once. */
static long clone_with(unsigned long flags)
{
	long pid = raw(SYS_clone, (long)(flags | SIGCHLD), 0, 0, 0, 0);
	if (pid == 0)
		_exit(0);
	if (pid > 0)
		waitpid((pid_t)pid, NULL, 0);
	return pid < 0 ? -1 : 0;
}

static long clone3_plain(void)
{
	uint64_t arguments[11] = { 0 };
	arguments[4] = SIGCHLD;
	long pid = raw(435, (long)arguments, sizeof arguments, 0, 0, 0);
	if (pid == 0)
		_exit(0);
	return pid < 0 ? -1 : 0;
}

static long in_child(long (*attempt)(void))
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(attempt() < 0 ? errno : 0);
	int status;
	waitpid(pid, &status, 0);
	errno = WEXITSTATUS(status);
	return errno == 0 ? 0 : -1;
}

static long try_unshare(void) { return raw(SYS_unshare, CLONE_NEWUSER, 0, 0, 0, 0); }
static long try_setuid(void) { return setuid(12345); }
static long try_setgid(void) { return setgid(12345); }
static long try_chroot(void) { return chroot("/"); }
static long try_bset(void) { return prctl(PR_CAPBSET_DROP, 0, 0, 0, 0); }

static long try_bind(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	unsigned char address[16] = { AF_INET, 0, 0, 1 };
	return bind(fd, (struct sockaddr *)address, sizeof address);
}

static long try_kill_other(void)
{
	/* A child of another user. */
	pid_t pid = fork();
	if (pid == 0) {
		if (setresuid(4321, 4321, 4321) < 0)
			_exit(99);
		alarm(1);
		pause();
	}
	usleep(50000);
	long result = waitpid(pid, NULL, WNOHANG) == 0 ? kill(pid, 0) : -1;
	int saved = result < 0 ? EPERM : 0;
	waitpid(pid, NULL, 0);
	errno = saved;
	return result;
}

static long device(int block, unsigned major_number, unsigned minor_number, int use)
{
	const char *path = "/tmp/probe-device";
	unlink(path);
	if (mknod(path, (block ? S_IFBLK : S_IFCHR) | 0600, makedev(major_number, minor_number)) < 0)
		return -1;
	if (!use)
		return 0;
	int fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY);
	int saved = errno;
	unlink(path);
	errno = saved;
	/* ENXIO and the like: the group let it through, the driver did not. */
	return fd >= 0 || saved != EPERM ? 0 : -1;
}

static long attempt(const char *name)
{
	unsigned a, b;
	char path[256];
	if (sscanf(name, "char-%u-%u", &a, &b) == 2) return device(0, a, b, 1);
	if (sscanf(name, "block-%u-%u", &a, &b) == 2) return device(1, a, b, 1);
	if (sscanf(name, "mknod-%u-%u", &a, &b) == 2) return device(0, a, b, 0);
	if (sscanf(name, "socket-%u", &a) == 1) return socket((int)a, SOCK_STREAM, 0) < 0 && socket((int)a, SOCK_DGRAM, 0) < 0 && socket((int)a, SOCK_SEQPACKET, 0) < 0 ? -1 : 0;
	if (sscanf(name, "socket-high-%u", &a) == 1) return raw(SYS_socket, (long)(a | 1UL << 32), SOCK_SEQPACKET, 0, 0, 0);
	if (sscanf(name, "write:%255s", path) == 1) return open(path, O_WRONLY) < 0 ? -1 : 0;
	if (sscanf(name, "create:%255s", path) == 1) return open(path, O_WRONLY | O_CREAT, 0600) < 0 ? -1 : 0;
	if (!strcmp(name, "unshare")) return in_child(try_unshare);
	if (!strcmp(name, "setns")) return raw(SYS_setns, open("/proc/self/ns/mnt", O_RDONLY), 0, 0, 0, 0);
	if (!strcmp(name, "mount")) return mount("none", "/tmp", "tmpfs", 0, NULL);
	if (!strcmp(name, "umount")) return umount2("/dev/shm", MNT_DETACH);
	if (!strcmp(name, "fsopen")) return raw(430, (long)"tmpfs", 0, 0, 0, 0);
	if (!strcmp(name, "open_tree")) return raw(428, AT_FDCWD, (long)"/", 0, 0, 0);
	if (!strcmp(name, "move_mount")) return raw(429, -1, 0, -1, 0, 0);
	if (!strcmp(name, "mount_setattr")) return raw(442, -1, 0, 0, 0, 0);
	if (!strcmp(name, "pivot_root")) return raw(SYS_pivot_root, (long)"/", (long)"/", 0, 0, 0);
	if (!strcmp(name, "bpf")) return raw(SYS_bpf, 0, 0, 0, 0, 0);
	if (!strcmp(name, "keyctl")) return raw(SYS_keyctl, 0, -3, 0, 0, 0);
	if (!strcmp(name, "add_key")) return raw(SYS_add_key, (long)"user", (long)"x", (long)"y", 1, -3);
	if (!strcmp(name, "request_key")) return raw(SYS_request_key, (long)"user", (long)"x", 0, 0, 0);
	if (!strcmp(name, "userfaultfd")) return raw(SYS_userfaultfd, 1, 0, 0, 0, 0);
	if (!strcmp(name, "perf_event_open")) return raw(SYS_perf_event_open, 0, 0, -1, -1, 0);
	if (!strcmp(name, "open_by_handle_at")) return raw(SYS_open_by_handle_at, AT_FDCWD, 0, 0, 0, 0);
	if (!strcmp(name, "kexec_load")) return raw(SYS_kexec_load, 0, 0, 0, 0, 0);
	if (!strcmp(name, "io_uring_setup")) return raw(425, 1, 0, 0, 0, 0);
	if (!strcmp(name, "init_module")) return raw(SYS_init_module, 0, 0, (long)"", 0, 0);
	if (!strcmp(name, "reboot")) return raw(SYS_reboot, 0, 0, 0, 0, 0);
	if (!strcmp(name, "swapon")) return raw(SYS_swapon, (long)"/nope", 0, 0, 0, 0);
	if (!strcmp(name, "quotactl")) return raw(SYS_quotactl, 0, 0, 0, 0, 0);
	if (!strcmp(name, "acct")) return raw(SYS_acct, (long)"/nope", 0, 0, 0, 0);
	if (!strcmp(name, "iopl")) return raw(SYS_iopl, 3, 0, 0, 0, 0);
	if (!strcmp(name, "syslog")) return raw(SYS_syslog, 10, 0, 0, 0, 0);
	if (!strcmp(name, "settimeofday")) return raw(SYS_settimeofday, 0, (long)"\0\0\0\0\0\0\0", 0, 0, 0);
	if (!strcmp(name, "sethostname")) return sethostname("x", 1);
	if (!strcmp(name, "clone3")) return clone3_plain();
	if (!strcmp(name, "clone")) return clone_with(0);
	if (sscanf(name, "clone-%x", &a) == 1) return clone_with(a);
	if (!strcmp(name, "personality")) return personality(0x0040000) < 0 ? -1 : 0;
	if (!strcmp(name, "unknown-syscall")) return raw(700, 0, 0, 0, 0, 0);
	if (!strcmp(name, "ptrace")) return ptrace(PTRACE_TRACEME, 0, 0, 0);
	if (!strcmp(name, "cap-chown")) { close(open("/tmp/c", O_CREAT | O_WRONLY, 0600)); return chown("/tmp/c", 77, 77); }
	if (!strcmp(name, "cap-dac_override")) { close(open("/tmp/d", O_CREAT | O_WRONLY, 0600)); chmod("/tmp/d", 0); return open("/tmp/d", O_RDONLY) < 0 ? -1 : 0; }
	if (!strcmp(name, "cap-fowner")) { close(open("/tmp/f", O_CREAT | O_WRONLY, 0600)); return chown("/tmp/f", 77, 77) < 0 ? -1 : chmod("/tmp/f", 0644); }
	if (!strcmp(name, "cap-fsetid")) {
		struct stat info;
		close(open("/tmp/s", O_CREAT | O_WRONLY, 0600));
		if (chown("/tmp/s", 0, 77) < 0 || chmod("/tmp/s", 02755) < 0 || stat("/tmp/s", &info) < 0) return -1;
		errno = EPERM;
		return info.st_mode & S_ISGID ? 0 : -1;
	}
	if (!strcmp(name, "cap-mknod")) return device(0, 1, 3, 0);
	if (!strcmp(name, "cap-net_raw")) return socket(AF_INET, SOCK_RAW, 1) < 0 ? -1 : 0;
	if (!strcmp(name, "cap-setuid")) return in_child(try_setuid);
	if (!strcmp(name, "cap-setgid")) return in_child(try_setgid);
	if (!strcmp(name, "cap-setpcap")) return in_child(try_bset);
	if (!strcmp(name, "cap-sys_chroot")) return in_child(try_chroot);
	if (!strcmp(name, "cap-kill")) return in_child(try_kill_other);
	if (!strcmp(name, "cap-setfcap")) {
		static const unsigned char capability[20] = { 1, 0, 0, 2 };
		close(open("/tmp/x", O_CREAT | O_WRONLY, 0600));
		return raw(SYS_setxattr, (long)"/tmp/x", (long)"security.capability", (long)capability, 20, 0);
	}
	if (!strcmp(name, "cap-net_bind_service")) return in_child(try_bind);
	if (!strcmp(name, "cap-sys_time")) return raw(SYS_clock_settime, 0, 0, 0, 0, 0);
	if (!strcmp(name, "cap-sys_nice")) return raw(SYS_setpriority, 0, 0, -5, 0, 0);
	if (!strcmp(name, "cap-sys_resource")) { long value[2] = { 1 << 30, 1 << 30 }; return raw(SYS_setrlimit, 7, (long)value, 0, 0, 0); }
	if (!strcmp(name, "cap-net_admin")) { unsigned mark = 1; return setsockopt(socket(AF_INET, SOCK_DGRAM, 0), SOL_SOCKET, SO_RCVBUFFORCE, &mark, sizeof mark); }
	if (!strcmp(name, "cap-dac_read_search")) return raw(SYS_open_by_handle_at, -1, 0, 0, 0, 0);
	if (!strcmp(name, "cap-sys_module")) return raw(SYS_delete_module, (long)"nope", 0, 0, 0, 0);
	if (!strcmp(name, "cap-sys_rawio")) return open("/dev/mem", O_RDONLY) < 0 ? -1 : 0;
	if (!strcmp(name, "cap-linux_immutable")) {
		unsigned long flags = 0x10;
		int fd = open("/tmp/i", O_CREAT | O_WRONLY, 0600);
		return raw(SYS_ioctl, fd, 0x40086602, (long)&flags, 0, 0);
	}
	errno = ENOTSUP;
	return -1;
}

static const char *errno_name(int number)
{
	switch (number) {
	case EPERM: return "EPERM";
	case EACCES: return "EACCES";
	case EROFS: return "EROFS";
	case ENOSYS: return "ENOSYS";
	case ENOENT: return "ENOENT";
	case EINVAL: return "EINVAL";
	case EAFNOSUPPORT: return "EAFNOSUPPORT";
	default: return NULL;
	}
}

/* `fds`: which descriptors are open, but for the one that lists them. */
static void print_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	printf("fds");
	for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
		if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory))
			printf(" %s", entry->d_name);
	printf("\n");
	closedir(directory);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "fds")) {
			print_descriptors();
			continue;
		}
		errno = 0;
		long result = attempt(argv[i]);
		int failure = errno;
		const char *name = errno_name(failure);
		if (result >= 0)
			printf("%s ok\n", argv[i]);
		else if (name != NULL)
			printf("%s %s\n", argv[i], name);
		else
			printf("%s errno-%d\n", argv[i], failure);
		fflush(stdout);
	}
	return 0;
}
