#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cgroup.h"
#include "io.h"

/*
 * The root filesystem's mount: made in a mount namespace of the shim's own, so that it lives and dies with the shim and
 * never shows on the host. Where the host's mounts are shared (systemd), only what the shim itself mounts on or
 * unmounts is cut off from the host; everything else keeps its peers, so that rshared and rslave binds work.
 */

#define CGROUP2_MAGIC 0x63677270
#define UNIFIED "/sys/fs/cgroup/unified"

static int fail(struct failure *failure, const char *stage, const char *subject)
{
	failure->number = errno;
	failure->stage = stage;
	snprintf(failure->text, sizeof failure->text, "%s %s: %s", stage, subject, strerror(errno));
	return -1;
}

/* Decodes mountinfo's \040-style escapes in place. */
static void unescape(char *text)
{
	char *out = text;
	for (const char *in = text; *in != 0;) {
		if (in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] != 0 && in[3] != 0) {
			*out++ = (char)((in[1] - '0') * 64 + (in[2] - '0') * 8 + (in[3] - '0'));
			in += 4;
		} else {
			*out++ = *in++;
		}
	}
	*out = 0;
}

/* The mount point that holds a directory: the one of its mount id, which is unambiguous where mounts are stacked. */
static int holding_mount(int fd, char *out, size_t size)
{
	char path[64], info[1024];
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	if (read_small_file(AT_FDCWD, path, info, sizeof info) < 0)
		return -1;
	char *at = strstr(info, "mnt_id:");
	FILE *file = at == NULL ? NULL : fopen("/proc/self/mountinfo", "re");
	if (file == NULL)
		return -1;
	int wanted = atoi(at + 7), result = -1;
	char *line = NULL;
	size_t room = 0;
	while (result < 0 && getline(&line, &room, file) > 0) {
		if (atoi(line) != wanted)
			continue;
		char *field = line;
		for (int i = 0; i < 4 && field != NULL; i++) {
			field = strchr(field, ' ');
			field += field != NULL;
		}
		if (field == NULL)
			break;
		field[strcspn(field, " ")] = 0;
		unescape(field);
		result = snprintf(out, size, "%s", field) < (int)size ? 0 : -1;
	}
	free(line);
	fclose(file);
	return result;
}

/*
 * Slave, not private: what the host mounts there later (a volume below /run) is still seen, and nothing of ours
 * goes the other way. On a mount that is not shared it changes nothing.
 */
static int stop_propagation_of_holder(int run_dir, struct failure *failure)
{
	char mount_point[4096];
	if (holding_mount(run_dir, mount_point, sizeof mount_point) < 0)
		return fail(failure, "find mount of", "the run directory");
	if (mount(NULL, mount_point, NULL, MS_SLAVE, NULL) < 0)
		return fail(failure, "make slave", mount_point);
	return 0;
}

/*
 * crun refuses a hybrid host (v1 controllers beside an almost empty v2 tree) unless the v2 tree is out of sight. An
 * unmount spreads to the peers of the *parent* mount, so that is what has to be cut off first. crun then takes the bare
 * mount point for a cgroup of its own and makes directories there: an empty file system of the shim's catches them.
 */
static int hide_unified(struct failure *failure)
{
	struct statfs info;
	if (statfs(UNIFIED, &info) < 0 || info.f_type != CGROUP2_MAGIC)
		return 0;
	char parent[4096];
	int fd = open("/sys/fs/cgroup", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int found = fd < 0 ? -1 : holding_mount(fd, parent, sizeof parent);
	if (fd >= 0)
		close(fd);
	if (found < 0)
		return fail(failure, "find mount of", "/sys/fs/cgroup");
	if (mount(NULL, parent, NULL, MS_PRIVATE, NULL) < 0)
		return fail(failure, "make private", parent);
	if (mount(NULL, UNIFIED, NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return fail(failure, "make private", UNIFIED);
	if (umount2(UNIFIED, MNT_DETACH) < 0)
		return fail(failure, "unmount", UNIFIED);
	if (mount("skiff", UNIFIED, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=256k,mode=0700") < 0)
		return fail(failure, "mount on", UNIFIED);
	cgroup_forget_hidden(UNIFIED);
	return 0;
}

/* A volatile overlay leaves a mark that makes the next mount of the same directories fail with EINVAL. */
static void remove_volatile_mark(int work)
{
	remove_tree_at(work, "work/incompat");
}

/*
 * Layers are named by descriptor numbers below /proc/self/fd: no escaping of `:` and `,`, no path that is resolved
 * twice, and 500 of them fit the one page that mount(2) takes for options, on every kernel.
 */
static int mount_overlay(const struct launch *launch, const char *target, struct failure *failure)
{
	char options[4096];
	int opened[LOWER_DIRS_MAX + 2];
	size_t count = 0, used = (size_t)snprintf(options, sizeof options, "lowerdir=");
	int result = -1;
	for (size_t i = 0; i < launch->lower_dirs.count + 2; i++) {
		size_t lower = launch->lower_dirs.count;
		const char *path = i < lower ? launch->lower_dirs.items[i] : i == lower ? launch->upper_dir : launch->work_dir;
		int fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0) {
			fail(failure, "open layer", path);
			goto out;
		}
		opened[count++] = fd;
		const char *name = i < lower ? (i == 0 ? "" : ":") : i == lower ? ",upperdir=" : ",workdir=";
		used += (size_t)snprintf(options + used, sizeof options - used, "%s%d", name, fd);
	}
	remove_volatile_mark(opened[count - 1]);
	/* The upper directory must stand on its own: no redirects or metadata-only copies that another mount misreads. */
	snprintf(options + used, sizeof options - used, ",index=off,redirect_dir=off,metacopy=off%s",
		 (launch->flags & LAUNCH_VOLATILE) != 0 ? ",volatile" : "");
	if (chdir("/proc/self/fd") < 0 || mount("overlay", target, "overlay", 0, options) < 0) {
		fail(failure, "mount overlay on", target);
		goto out;
	}
	result = 0;
out:
	if (chdir("/") < 0)
		result = -1;
	while (count > 0)
		close(opened[--count]);
	return result;
}

int rootfs_mount(const struct launch *launch, int run_dir, struct failure *failure)
{
	char target[4096];
	snprintf(target, sizeof target, "%s/rootfs", launch->run_dir);
	if (unshare(CLONE_NEWNS) < 0)
		return fail(failure, "unshare", "mount namespace");
	/* The descriptor still stands for the directory on the host's mount: from here on, for the one in this namespace. */
	int here = open(launch->run_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (here < 0 || dup3(here, run_dir, O_CLOEXEC) < 0)
		return fail(failure, "open", launch->run_dir);
	close(here);
	if (mkdirat(run_dir, "rootfs", 0755) < 0 && errno != EEXIST)
		return fail(failure, "mkdir", target);
	if (stop_propagation_of_holder(run_dir, failure) < 0)
		return -1;
	if ((launch->flags & LAUNCH_HIDE_UNIFIED) != 0 && hide_unified(failure) < 0)
		return -1;
	if (launch->lower_dirs.count > 0)
		return mount_overlay(launch, target, failure);
	if (mount(launch->upper_dir, target, NULL, MS_BIND, NULL) < 0)
		return fail(failure, "bind", launch->upper_dir);
	return mount(NULL, target, NULL, MS_PRIVATE, NULL) < 0 ? fail(failure, "make private", target) : 0;
}

void rootfs_unmount(int run_dir)
{
	if (fchdir(run_dir) == 0)
		umount2("rootfs", MNT_DETACH | UMOUNT_NOFOLLOW);
	if (chdir("/") == 0)
		unlinkat(run_dir, "rootfs", AT_REMOVEDIR);
}
