#ifndef SKIFF_CGROUP_H
#define SKIFF_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/*
 * A path below every cgroup hierarchy of the host, v1 and v2 alike. The table of hierarchies is read once by the
 * launcher; shims inherit it. Paths are absolute below each hierarchy's mount, as `cgroupsPath` in an OCI spec.
 */
void cgroup_discover(void);

/* Forgets the v2 tree beside v1 controllers: the shim has hidden it, and what shows there is no cgroup. */
void cgroup_forget_hidden(const char *mount_point);

/* True when this is a path below the mount that cannot climb: absolute, no `..`, not the root itself. */
bool cgroup_path_valid(const char *path);

/* Makes a cgroup in every hierarchy; a cpuset is given its parent's processors and memory nodes. */
void cgroup_make(const char *path);

/* Makes the parents of a container's cgroup, so that two runtimes starting at once do not race for them. */
void cgroup_make_parents(const char *path);

/*
 * Moves the calling process into the cgroup of each hierarchy where it exists. `leader` is the container's first
 * process: where a v2 cgroup takes no processes (it has children with controllers) its own cgroup is joined.
 * Returns 0, or -1 with errno of the first hierarchy that has the cgroup and refused.
 */
int cgroup_join(const char *path, pid_t leader);

/*
 * After a pause the kernel wants a grace period (5 to 15 ms) before the first move between cgroups. Moving this process
 * to where it already is (`own`) waits for it, and the moves that follow soon after do not.
 */
void cgroup_wait_grace_period(const char *own);

/* The same in a child: the wait passes while the root filesystem is mounted and the runtime starts up. */
void cgroup_begin_grace_period(const char *own);

/* SIGKILL to everything in the cgroup and below. Returns the number of processes that were still there. */
unsigned cgroup_kill(const char *path);

/* Removes the cgroup and what is below it, in every hierarchy. Returns true when nothing is left. */
bool cgroup_remove(const char *path);

/* True when the kernel killed a process of this cgroup for want of memory. */
bool cgroup_oom_killed(const char *path);

#endif
