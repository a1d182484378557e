#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mount-flags.h"

/*
 * Volumes, binds and files in /etc of a container that does not run, mounted in its root filesystem so that its files can be
 * read and written as it would see them. Targets are resolved beneath the root, whatever links an image or a volume has
 * put there, and mounted on by descriptor; what is missing is made. Seen by nobody else, and gone with the shim.
 */

static int open_in_root(int root, const char *path, uint64_t flags, uint64_t mode)
{
	struct open_how how = { .flags = flags | O_CLOEXEC,
				.mode = mode,
				.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
	long fd;
	/* A rename elsewhere that races with `..` gives EAGAIN. */
	for (int tries = 0; tries < 128; tries++) {
		fd = syscall(SYS_openat2, root, path[0] == 0 ? "." : path, &how, sizeof how);
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return (int)fd;
}

/* Makes the directories in front of the last name of `path`; links on the way are followed inside the root. */
static int make_parents(int root, const char *path)
{
	char walked[4096];
	size_t length = strlen(path);
	if (length >= sizeof walked)
		return errno = ENAMETOOLONG, -1;
	for (size_t at = 1; at <= length; at++) {
		if (path[at] != '/')
			continue;
		memcpy(walked, path, at);
		walked[at] = 0;
		int fd = open_in_root(root, walked, O_PATH | O_DIRECTORY, 0);
		if (fd < 0 && errno == ENOENT) {
			char *slash = strrchr(walked, '/');
			*slash = 0;
			int parent = open_in_root(root, walked, O_PATH | O_DIRECTORY, 0);
			int made = parent < 0 ? -1 : mkdirat(parent, slash + 1, 0755);
			if (parent >= 0)
				close(parent);
			if (made < 0)
				return -1;
		} else if (fd < 0) {
			return -1;
		} else {
			close(fd);
		}
	}
	return 0;
}

/* A place of the source's kind, made where it is missing: an O_PATH descriptor. */
static int open_target(int root, const char *path, bool directory)
{
	const uint64_t flags = O_PATH | (directory ? O_DIRECTORY : 0);
	int fd = open_in_root(root, path, flags, 0);
	if (fd >= 0 || errno != ENOENT || make_parents(root, path) < 0)
		return fd;
	if (!directory) {
		int made = open_in_root(root, path, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY, 0755);
		if (made < 0)
			return -1;
		close(made);
		return open_in_root(root, path, flags, 0);
	}
	char parent[4096];
	snprintf(parent, sizeof parent, "%s", path);
	char *slash = strrchr(parent, '/');
	if (slash == NULL)
		return errno = EINVAL, -1;
	*slash = 0;
	int parent_fd = open_in_root(root, parent, O_PATH | O_DIRECTORY, 0);
	int made = parent_fd < 0 ? -1 : mkdirat(parent_fd, slash + 1, 0755);
	if (parent_fd >= 0)
		close(parent_fd);
	return made < 0 ? -1 : open_in_root(root, path, flags, 0);
}

/* A mount by its own descriptor: the magic link leads to that very mount, whatever lies at the path it was made at. */
static int set_flags(int tree, unsigned long flags)
{
	char self[64];
	snprintf(self, sizeof self, "/proc/self/fd/%d", tree);
	return mount(NULL, self, NULL, flags, NULL);
}

/* A change of a mount's flags replaces all of them: those it was bound with stay. */
static int make_read_only(int tree)
{
	struct statvfs info;
	if (fstatvfs(tree, &info) < 0)
		return -1;
	unsigned long kept = info.f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC);
	return set_flags(tree, MS_BIND | MS_REMOUNT | MS_RDONLY | kept);
}

/*
 * Source and target are resolved once each: from then on both are descriptors (open_tree and move_mount, Linux 5.2). Another
 * container that shares a volume may change the names in it meanwhile; it cannot change which mount becomes read-only.
 */
static int mount_bind(int root, const char *source, const char *target, struct failure *failure)
{
	const bool read_only = source[0] == 'r', recursive = source[0] != 0 && source[1] == 'R';
	if (strlen(source) < 3 || source[2] != '/' || target[0] != '/')
		return errno = EINVAL, fail(failure, "bind", target);
	source += 2;
	const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0);
	int tree = (int)syscall(SYS_open_tree, AT_FDCWD, source, flags);
	struct stat info;
	if (tree < 0)
		return fail(failure, "open mount source", source);
	int result = -1, place = -1;
	if (fstat(tree, &info) < 0)
		fail(failure, "stat", source);
	else if ((place = open_target(root, target, S_ISDIR(info.st_mode))) < 0)
		fail(failure, "open mount target", target);
	else if (syscall(SYS_move_mount, tree, "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		fail(failure, "bind", target);
	else if (set_flags(tree, MS_REC | MS_PRIVATE) < 0 || (read_only && make_read_only(tree) < 0))
		fail(failure, "make private or read-only", target);
	else
		result = 0;
	if (place >= 0)
		close(place);
	close(tree);
	return result;
}

int rootfs_mount_binds(const struct launch *launch, const char *rootfs, struct failure *failure)
{
	if ((launch->flags & LAUNCH_FILES_ONLY) == 0)
		return 0;
	int root = open(rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return fail(failure, "open", rootfs);
	int result = 0;
	for (size_t i = 0; i < launch->bind_sources.count && result == 0; i++)
		result = mount_bind(root, launch->bind_sources.items[i], launch->bind_targets.items[i], failure);
	close(root);
	if (result == 0 && (launch->flags & LAUNCH_READONLY_ROOT) != 0 &&
	    mount(NULL, rootfs, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0)
		result = fail(failure, "make read-only", rootfs);
	return result;
}
