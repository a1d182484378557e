#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cgroup.h"
#include "io.h"
#include "mount-flags.h"

/*
 * The root filesystem's mount: made in a mount namespace of the shim's own, so that it lives and dies with the shim and
 * never shows on the host. Where the host's mounts are shared (systemd), only what the shim itself mounts on or
 * unmounts is cut off from the host, for as long as it does; everything else keeps its peers, so that rshared and rslave
 * binds work.
 */

#define CGROUP2_MAGIC 0x63677270
#define UNIFIED "/sys/fs/cgroup/unified"

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

/*
 * The mount point that holds a directory: the one of its mount id, which is unambiguous where mounts are stacked. Says
 * also whether that mount has peers or a master.
 */
static int holding_mount(int fd, char *out, size_t size, bool *grouped)
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
		char *end = field + strcspn(field, " ");
		char *optional = end, *separator = strstr(end, " - ");
		if (separator != NULL)
			*separator = 0;
		*grouped = strstr(optional, " shared:") != NULL || strstr(optional, " master:") != NULL;
		*end = 0;
		unescape(field);
		result = snprintf(out, size, "%s", field) < (int)size ? 0 : -1;
	}
	free(line);
	fclose(file);
	return result;
}

/* The mount that holds the run directory, as the host has it. */
struct holder {
	/* Its root on the host's side, -1 when it shares with nobody. */
	int host_root;
	char mount_point[4096];
};

static int find_holder(struct holder *holder, int run_dir, struct failure *failure)
{
	bool grouped = false;
	holder->host_root = -1;
	if (holding_mount(run_dir, holder->mount_point, sizeof holder->mount_point, &grouped) < 0)
		return fail(failure, "find mount of", "the run directory");
	if (grouped)
		holder->host_root = open(holder->mount_point, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return grouped && holder->host_root < 0 ? fail(failure, "open", holder->mount_point) : 0;
}

/* MOVE_MOUNT_SET_GROUP came with Linux 5.15: older kernels refuse the flag before they look at the descriptors. */
static bool can_set_group(void)
{
	const unsigned flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH | MOVE_MOUNT_SET_GROUP;
	return syscall(SYS_move_mount, -1, "", -1, "", flags) < 0 && errno == EBADF;
}

/*
 * Gives the run directory a private mount of its own in this namespace, on which the root filesystem is then mounted.
 * While that is done its holder is private too; afterwards it joins the host's group again, so that binds from it
 * propagate as they are told. A kernel that cannot do this gets a slave: nothing of ours goes to the host, and neither
 * does what a container mounts on an rshared bind from that very mount.
 */
static int isolate_run_dir(const struct holder *holder, int run_dir, struct failure *failure)
{
	const char *holding = holder->mount_point;
	if (holder->host_root < 0)
		return 0;
	if (!can_set_group())
		return mount(NULL, holding, NULL, MS_SLAVE, NULL) < 0 ? fail(failure, "make slave", holding) : 0;
	if (mount(NULL, holding, NULL, MS_PRIVATE, NULL) < 0)
		return fail(failure, "make private", holding);
	if (fchdir(run_dir) < 0 || mount(".", ".", NULL, MS_BIND, NULL) < 0)
		return fail(failure, "bind", "the run directory");
	if (syscall(SYS_move_mount, holder->host_root, "", AT_FDCWD, holding,
		    MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_SET_GROUP) < 0)
		return fail(failure, "share again", holding);
	return 0;
}

static int reopen_run_dir(const struct launch *launch, int run_dir, struct failure *failure)
{
	int here = open(launch->run_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (here < 0 || dup3(here, run_dir, O_CLOEXEC) < 0)
		return fail(failure, "open", launch->run_dir);
	close(here);
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
	bool grouped;
	int found = fd < 0 ? -1 : holding_mount(fd, parent, sizeof parent, &grouped);
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
	struct holder holder;
	if (find_holder(&holder, run_dir, failure) < 0)
		return -1;
	if (unshare(CLONE_NEWNS) < 0)
		return fail(failure, "unshare", "mount namespace");
	/* The descriptor still stands for the directory on the host's mount; and once isolated, for what lies below. */
	if (reopen_run_dir(launch, run_dir, failure) < 0 || isolate_run_dir(&holder, run_dir, failure) < 0 ||
	    reopen_run_dir(launch, run_dir, failure) < 0)
		return -1;
	if (holder.host_root >= 0)
		close(holder.host_root);
	if (mkdirat(run_dir, "rootfs", 0755) < 0 && errno != EEXIST)
		return fail(failure, "mkdir", target);
	if ((launch->flags & LAUNCH_HIDE_UNIFIED) != 0 && hide_unified(failure) < 0)
		return -1;
	if (launch->lower_dirs.count > 0)
		return mount_overlay(launch, target, failure) < 0 ? -1 : rootfs_mount_binds(launch, target, failure);
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
