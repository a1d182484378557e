#ifndef SKIFF_SHIM_H
#define SKIFF_SHIM_H

/*
 * One shim supervises one container: docs/internals/native.md. The launcher forks it with the daemon's connection, from
 * which it reads the launch. Files: rootfs.c (mounts), ports.c (reservations), runtime.c (the OCI runtime),
 * stdio-*.c (streams and clients), exec*.c (execs), exit-record.c, shim-setup.c, shim-control.c (the control
 * channel), shim.c (life).
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "frame.h"
#include "json-log.h"
#include "loop.h"
#include "stdio-stream.h"

#define PORTS_MAX 65536
#define LOWER_DIRS_MAX 500

struct text_list {
	char **items;
	size_t count;
};

struct launch {
	uint64_t version;
	char *id;
	char *run_dir;
	char *state_dir;
	struct text_list lower_dirs;
	char *upper_dir;
	char *work_dir;
	uint64_t flags;
	char *runtime_path;
	char *runtime_root;
	struct text_list runtime_arguments;
	char *log_path;
	uint64_t log_bytes_max;
	uint64_t log_files_max;
	char *log_attrs;
	struct text_list ports;
	/* With LAUNCH_FILES_ONLY: two letters (`r` read-only or `w`, `R` recursive or `N`) and a path; and where it goes. */
	struct text_list bind_sources;
	struct text_list bind_targets;
	char *cgroup_path;
	int64_t oom_score;
	bool has_oom_score;
};

/* Why something failed, for a FAILED or START_FAILED frame. */
struct failure {
	int number; /* errno */
	const char *stage;
	char text[512];
};

/* Takes errno down: `<stage> <subject>: <what errno means>`. Returns -1. */
int fail(struct failure *failure, const char *stage, const char *subject);

enum shim_state { STATE_CREATED = 1, STATE_STARTING = 2, STATE_RUNNING = 3, STATE_EXITED = 4 };

struct exit_status {
	int code;
	uint64_t started_ns;
	uint64_t finished_ns;
	bool oom_killed;
	uint64_t dropped_lines;
};

struct shim {
	struct launch launch;
	enum shim_state state;
	bool done;
	/* This process has the container's lock: the files in its run directory are its own. */
	bool locked;
	/* The daemon has the exit, or was not there to take it. */
	bool acknowledged;
	bool cleaned;
	/* Mount, files and lock are given up: the next run may begin while clients are still being served. */
	bool torn_down;
	int run_dir;
	int state_dir;
	struct json_log log;
	struct stdio io;
	int child_fds[3];
	struct watch listener;
	struct watch console;
	struct watch children;
	/* A start's frame sequence, to answer it. */
	uint64_t start_sequence;
	pid_t runtime_pid;
	pid_t pid;
	int pidfd;
	struct exit_status exit;
	struct rlimit limits[16];
	struct timer flush;
	struct timer clean;
	struct timer linger;
	int64_t exited_ms;
	int64_t clean_delay_ms;
};

/* The one shim of this process. */
extern struct shim shim;

/* Runs until the container and its execs are gone. `control`: the accepted connection. */
_Noreturn void shim_main(int control);

/* launcher.c: what `ps` shows of this process; cut to the space there is. */
void process_rename(const char *title);

/* launcher.c: the cgroup that it and every shim are in, or "". */
extern const char *launcher_cgroup;

/* launch.c */
bool launch_parse(struct launch *launch, const uint8_t *fields, size_t length, struct failure *failure);

/* rootfs.c: enters a mount namespace and mounts the root filesystem on `<run_dir>/rootfs`. */
int rootfs_mount(const struct launch *launch, int run_dir, struct failure *failure);
/* rootfs-binds.c: what the container has mounted in its root filesystem, for those who read and write its files. */
int rootfs_mount_binds(const struct launch *launch, const char *rootfs, struct failure *failure);
void rootfs_unmount(int run_dir);

/* ports.c: binds every port for the shim's life. */
int ports_reserve(const struct text_list *ports, struct failure *failure);
void ports_release(void);

/* runtime.c */
void sealed_copy_prepare(const char *path);
int sealed_copy_for(const char *path);
/* Starts `<runtime> run --detach`; its end is told by SIGCHLD. 0 or -1. */
int runtime_start(struct shim *self, struct failure *failure);
/* The pid that the runtime left in its pid file, or -1. */
/* Takes over the terminal that the runtime has sent, if it is there. */
void runtime_take_console(struct shim *self);
pid_t runtime_read_pid(const struct shim *self);
/* The runtime's own words after a failure, from its log or from what it wrote to stderr. */
void runtime_read_error(const struct shim *self, char *out, size_t size);
void runtime_remove_state(const struct launch *launch);

/* exit-record.c: `<state_dir>/exit`, durable when this returns 0. */
int exit_record_write(int state_dir, const struct exit_status *status);

/* shim-control.c */
void control_adopt(int fd);
bool control_connected(void);
void control_send(struct frame *frame);
void control_fail(uint64_t sequence, int number, const char *text);
void control_close(void);
/* The runtime has ended: answers a daemon that has connected meanwhile. */
void control_start_settled(bool started);
/* A new connection of the listening socket: reads its first frame, then knows what it is. */
void connection_accept(struct watch *listener, uint32_t events);
/* Sends a frame over a socket that is still in the opening phase; small, so it fits the socket's buffer. */
void frame_send_once(int fd, struct frame *frame);

/* shim-setup.c: all that a launch needs, up to the mounted root filesystem; and all of it given up, once. */
int shim_set_up(struct failure *failure);
void shim_tear_down(void);

/* shim.c, called by the control channel. */
void shim_start(uint64_t sequence);
void shim_abandon(void);
void shim_control_lost(void);
void shim_exit_acknowledged(void);
void shim_fill_exit(struct frame *frame);
/* Asks for a look at whether anything is left to do. */
void shim_review_soon(void);

/* exec.c */
void exec_open(int fd, const uint8_t *fields, size_t length);
int exec_resize(const char *id, unsigned rows, unsigned columns);
void exec_acknowledge(const char *id);
/* Reads what exec'd processes have said about themselves: before it is asked whose a pid is. */
void exec_settle(void);
/* A child has ended; nothing happens when it was no exec's. */
void exec_reaped(pid_t pid, int code);
void exec_report_all(void);
void exec_container_gone(void);
bool exec_any(void);

#endif
