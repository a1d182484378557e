#ifndef SKIFF_EXEC_CHILD_H
#define SKIFF_EXEC_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

/* Everything an exec's child needs, ready before the fork. Lists end with NULL. */
struct exec_request {
	char *id;
	char **arguments;
	char **environment;
	size_t argument_count, environment_count;
	char *cwd;
	uint64_t uid, gid;
	gid_t *groups;
	size_t group_count;
	uint64_t bounding, effective, permitted, inheritable, ambient;
	uint64_t flags;
	char *seccomp_path;
	char *apparmor;
	uint64_t rows, columns;
	/* Of the container. */
	pid_t leader;
	int leader_pidfd;
	const char *cgroup_path;
	const struct rlimit *limits;
	bool has_oom_score;
	int64_t oom_score;
	/* Ends for the process, unused with a terminal. */
	int stdio[3];
};

/* Adds a frame's fields to what is already there; false when the frame is malformed. Release it in either case. */
bool exec_request_parse(struct exec_request *request, const uint8_t *fields, size_t length);
void exec_request_release(struct exec_request *request);

/* One message over the status socket (SOCK_SEQPACKET); the socket's end without EXEC_ERROR means: running. */
enum exec_message { EXEC_PID = 1, EXEC_CONSOLE = 2, EXEC_ERROR = 3 };

enum exec_stage {
	EXEC_STAGE_JOIN = 1,    /* cgroup, namespaces */
	EXEC_STAGE_CONSOLE = 2, /* terminal */
	EXEC_STAGE_CWD = 3,
	EXEC_STAGE_LOOKUP = 4,  /* the program is not there or may not be run */
	EXEC_STAGE_IDENTITY = 5, /* user, capabilities, seccomp, AppArmor */
};

struct exec_status {
	int32_t message;
	int32_t value; /* pid, or errno */
	int32_t stage;
	char text[244];
};

/*
 * In a fork of the shim: joins the container and forks the process itself as the shim's child, which then takes on its
 * identity and runs the program. `status` is the shim's socket.
 */
_Noreturn void exec_child(const struct exec_request *request, int status);

#endif
