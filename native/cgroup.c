#include "cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io.h"

#define HIERARCHIES_MAX 32
#define DEPTH_MAX 32

struct hierarchy {
	char mount[128];
	bool unified;
	bool cpuset;
	bool memory;
	bool freezer;
};

static struct hierarchy hierarchies[HIERARCHIES_MAX];
static size_t hierarchy_count;

static bool has_word(const char *list, const char *word)
{
	size_t length = strlen(word);
	for (const char *at = list; (at = strstr(at, word)) != NULL; at += length)
		if ((at == list || at[-1] == ',') && (at[length] == ',' || at[length] == 0 || at[length] == '\n'))
			return true;
	return false;
}

/* mountinfo: `id parent major:minor root mountpoint options [tags] - type source superoptions` (proc(5)). */
static void take_line(char *line)
{
	char *dash = strstr(line, " - ");
	if (dash == NULL || hierarchy_count == HIERARCHIES_MAX)
		return;
	char type[32], options[256], mount[128], root[128];
	if (sscanf(dash + 3, "%31s %*s %255s", type, options) != 2)
		return;
	bool unified = strcmp(type, "cgroup2") == 0;
	if (!unified && strcmp(type, "cgroup") != 0)
		return;
	if (sscanf(line, "%*s %*s %*s %127s %127s", root, mount) != 2)
		return;
	for (size_t i = 0; i < hierarchy_count; i++)
		if (strcmp(hierarchies[i].mount, mount) == 0)
			return;
	struct hierarchy *found = &hierarchies[hierarchy_count++];
	*found = (struct hierarchy){ .unified = unified };
	memcpy(found->mount, mount, sizeof mount);
	if (!unified) {
		found->cpuset = has_word(options, "cpuset");
		found->memory = has_word(options, "memory");
		found->freezer = has_word(options, "freezer");
	}
}

void cgroup_discover(void)
{
	hierarchy_count = 0;
	FILE *file = fopen("/proc/self/mountinfo", "re");
	if (file == NULL)
		return;
	char *line = NULL;
	size_t room = 0;
	while (getline(&line, &room, file) > 0)
		if (strstr(line, " - cgroup") != NULL)
			take_line(line);
	free(line);
	fclose(file);
}

void cgroup_forget_hidden(const char *mount_point)
{
	size_t kept = 0;
	for (size_t i = 0; i < hierarchy_count; i++)
		if (strcmp(hierarchies[i].mount, mount_point) != 0)
			hierarchies[kept++] = hierarchies[i];
	hierarchy_count = kept;
}

bool cgroup_path_valid(const char *path)
{
	if (path[0] != '/' || path[1] == 0 || strlen(path) > 1024)
		return false;
	for (const char *at = path; (at = strstr(at, "..")) != NULL; at++)
		if ((at == path || at[-1] == '/') && (at[2] == '/' || at[2] == 0))
			return false;
	return strchr(path, '\n') == NULL;
}

static bool join_path(char *out, size_t size, const struct hierarchy *hierarchy, const char *path, const char *file)
{
	return snprintf(out, size, "%s%s%s%s", hierarchy->mount, path, file[0] != 0 ? "/" : "", file) < (int)size;
}

/* A new v1 cpuset is empty and takes no process until it has processors and nodes. */
static void fill_cpuset(const char *folder)
{
	static const char *const files[] = { "cpuset.cpus", "cpuset.mems" };
	for (size_t i = 0; i < array_length(files); i++) {
		char path[2048], value[4096];
		snprintf(path, sizeof path, "%s/%s", folder, files[i]);
		if (read_small_file(AT_FDCWD, path, value, sizeof value) < 0 || (value[0] != 0 && value[0] != '\n'))
			continue;
		char parent[2048];
		snprintf(parent, sizeof parent, "%s/../%s", folder, files[i]);
		if (read_small_file(AT_FDCWD, parent, value, sizeof value) > 0)
			write_existing_file(AT_FDCWD, path, value);
	}
}

static void make_one(const struct hierarchy *hierarchy, const char *path)
{
	char folder[1536];
	if (!join_path(folder, sizeof folder, hierarchy, path, ""))
		return;
	size_t mount = strlen(hierarchy->mount);
	for (char *at = folder + mount + 1;; at++) {
		if (*at != '/' && *at != 0)
			continue;
		char end = *at;
		*at = 0;
		if (mkdir(folder, 0755) == 0 && hierarchy->cpuset)
			fill_cpuset(folder);
		*at = end;
		if (end == 0)
			break;
	}
}

void cgroup_make(const char *path)
{
	for (size_t i = 0; i < hierarchy_count; i++)
		make_one(&hierarchies[i], path);
}

void cgroup_make_parents(const char *path)
{
	char parent[1100];
	snprintf(parent, sizeof parent, "%s", path);
	char *slash = strrchr(parent, '/');
	if (slash == NULL || slash == parent)
		return;
	*slash = 0;
	for (size_t i = 0; i < hierarchy_count; i++)
		if (!hierarchies[i].unified || hierarchy_count == 1)
			make_one(&hierarchies[i], parent);
}

static int join_leaders_own(const struct hierarchy *hierarchy, pid_t leader)
{
	char path[64], text[2048];
	snprintf(path, sizeof path, "/proc/%d/cgroup", (int)leader);
	if (leader <= 0 || read_small_file(AT_FDCWD, path, text, sizeof text) <= 0)
		return -1;
	char *own = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
	if (own == NULL)
		return -1;
	own += own[0] == '\n' ? 4 : 3;
	own[strcspn(own, "\n")] = 0;
	char procs[2300];
	if (!cgroup_path_valid(own) || !join_path(procs, sizeof procs, hierarchy, own, "cgroup.procs"))
		return -1;
	return write_existing_file(AT_FDCWD, procs, "0");
}

int cgroup_join(const char *path, pid_t leader)
{
	int result = 0, failed = 0;
	for (size_t i = 0; i < hierarchy_count; i++) {
		char procs[1536];
		if (!join_path(procs, sizeof procs, &hierarchies[i], path, "cgroup.procs"))
			continue;
		if (write_existing_file(AT_FDCWD, procs, "0") == 0 || errno == ENOENT || errno == ENODEV)
			continue;
		if (hierarchies[i].unified && join_leaders_own(&hierarchies[i], leader) == 0)
			continue;
		if (result == 0)
			failed = errno;
		result = -1;
	}
	errno = failed;
	return result;
}

void cgroup_wait_grace_period(const char *own)
{
	char procs[1536];
	if (hierarchy_count > 0 && join_path(procs, sizeof procs, &hierarchies[0], own, "cgroup.procs"))
		write_existing_file(AT_FDCWD, procs, "0");
}

void cgroup_begin_grace_period(const char *own)
{
	if (fork() == 0) {
		cgroup_wait_grace_period(own);
		_exit(0);
	}
}

typedef void (*folder_visitor)(int fd, void *context);

/* Children first. `remove`: each folder is removed after its visit. Returns whether the folder is gone. */
static bool visit_tree(int parent, const char *name, int depth, folder_visitor visit, void *context, bool remove)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT;
	DIR *listing = depth > 0 ? fdopendir(dup(fd)) : NULL;
	struct dirent *entry;
	while (listing != NULL && (entry = readdir(listing)) != NULL)
		if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
			visit_tree(fd, entry->d_name, depth - 1, visit, context, remove);
	if (listing != NULL)
		closedir(listing);
	if (visit != NULL)
		visit(fd, context);
	close(fd);
	return remove && (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT);
}

static void kill_members(int fd, void *context)
{
	unsigned *count = context;
	int procs = openat(fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	FILE *file = procs < 0 ? NULL : fdopen(procs, "r");
	if (file == NULL)
		return;
	int pid;
	while (fscanf(file, "%d", &pid) == 1) {
		if (pid > 1 && kill(pid, SIGKILL) == 0)
			(*count)++;
	}
	fclose(file);
}

unsigned cgroup_kill(const char *path)
{
	unsigned most = 0;
	for (size_t i = 0; i < hierarchy_count; i++) {
		char folder[1536];
		if (!join_path(folder, sizeof folder, &hierarchies[i], path, ""))
			continue;
		unsigned count = 0;
		char file[1600];
		snprintf(file, sizeof file, "%s/cgroup.kill", folder);
		if (hierarchies[i].unified)
			write_existing_file(AT_FDCWD, file, "1");
		/* A frozen task dies only once it is thawed; freezing first stops a fork bomb from outrunning the loop. */
		snprintf(file, sizeof file, "%s/freezer.state", folder);
		if (hierarchies[i].freezer)
			write_existing_file(AT_FDCWD, file, "FROZEN");
		visit_tree(AT_FDCWD, folder, DEPTH_MAX, kill_members, &count, false);
		if (hierarchies[i].freezer)
			write_existing_file(AT_FDCWD, file, "THAWED");
		if (count > most)
			most = count;
	}
	return most;
}

bool cgroup_remove(const char *path)
{
	bool gone = true;
	for (size_t i = 0; i < hierarchy_count; i++) {
		char folder[1536];
		if (!join_path(folder, sizeof folder, &hierarchies[i], path, ""))
			continue;
		if (rmdir(folder) == 0 || errno == ENOENT)
			continue;
		if (!visit_tree(AT_FDCWD, folder, DEPTH_MAX, NULL, NULL, true))
			gone = false;
	}
	return gone;
}

static bool counter_above_zero(const char *text, const char *name)
{
	size_t length = strlen(name);
	for (const char *at = text; (at = strstr(at, name)) != NULL; at += length)
		if ((at == text || at[-1] == '\n') && at[length] == ' ')
			return strtoull(at + length + 1, NULL, 10) > 0;
	return false;
}

bool cgroup_oom_killed(const char *path)
{
	for (size_t i = 0; i < hierarchy_count; i++) {
		if (!hierarchies[i].memory && !hierarchies[i].unified)
			continue;
		char file[1536], text[1024];
		const char *name = hierarchies[i].memory ? "memory.oom_control" : "memory.events";
		if (join_path(file, sizeof file, &hierarchies[i], path, name) &&
		    read_small_file(AT_FDCWD, file, text, sizeof text) > 0 && counter_above_zero(text, "oom_kill"))
			return true;
	}
	return false;
}
