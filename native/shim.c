#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "io.h"

/*
 * The life of a shim:
 *
 *   launch → created → (START) starting → running → exited → cleaned → end
 *
 * 1. A daemon that goes away before START ends the shim, and nothing stays; after it, the shim lives on.
 * 2. At the exit: output into the log, the record onto the disk, then the daemon is told, then everything else.
 * 3. It ends when the cgroups are gone, the clients have their output, and the daemon has the exit or is not there.
 */

#define LAUNCH_TIMEOUT_S 10
#define ACK_WAIT_MS 30000
#define CLEAN_FIRST_MS 1
#define CLEAN_GIVE_UP_MS 10000
#define FLUSH_WAIT_MS 2000

struct shim shim;

static void end_when_nothing_is_left(struct timer *timer);

/* Setting up. */

static _Noreturn void refuse(int control, const struct failure *failure)
{
	struct frame frame;
	frame_begin(&frame, FRAME_FAILED);
	frame_number(&frame, TAG_ERRNO, (uint64_t)failure->number);
	frame_text(&frame, TAG_STAGE, failure->stage);
	frame_text(&frame, TAG_TEXT, failure->text);
	frame_send_once(control, &frame);
	_exit(1);
}

static void send_ready(void)
{
	struct frame frame;
	char path[4096];
	snprintf(path, sizeof path, "%s/rootfs", shim.launch.run_dir);
	frame_begin(&frame, FRAME_READY);
	frame_number(&frame, TAG_VERSION, PROTOCOL_VERSION);
	frame_number(&frame, TAG_PID, (uint64_t)getpid());
	frame_text(&frame, TAG_ROOTFS, path);
	control_send(&frame);
}

/* Starting. */

static void start_failed(const char *text)
{
	struct frame frame;
	frame_begin(&frame, FRAME_START_FAILED);
	frame_number(&frame, TAG_SEQUENCE, shim.start_sequence);
	frame_text(&frame, TAG_TEXT, text);
	control_send(&frame);
	shim.state = STATE_EXITED;
	shim.exited_ms = monotonic_ms();
	shim.acknowledged = true;
	stdio_finish(&shim.io);
	timer_arm(&shim.clean, 0);
	control_start_settled(false);
}

void shim_start(uint64_t sequence)
{
	if (shim.state != STATE_CREATED || (shim.launch.flags & LAUNCH_FILES_ONLY) != 0) {
		control_fail(sequence, EALREADY, "already started");
		return;
	}
	shim.state = STATE_STARTING;
	shim.start_sequence = sequence;
	if ((shim.launch.flags & LAUNCH_SYSTEMD_CGROUP) == 0)
		cgroup_make_parents(shim.launch.cgroup_path);
	make_directories(shim.launch.runtime_root, 0700);
	struct failure failure;
	if (runtime_start(&shim, &failure) < 0)
		start_failed(failure.text);
}

static void close_child_ends(void)
{
	for (int i = 0; i < 3; i++) {
		if (shim.child_fds[i] >= 0)
			close(shim.child_fds[i]);
		shim.child_fds[i] = -1;
	}
}

static void report_started(void)
{
	struct frame frame;
	frame_begin(&frame, FRAME_STARTED);
	frame_number(&frame, TAG_SEQUENCE, shim.start_sequence);
	frame_number(&frame, TAG_PID, (uint64_t)shim.pid);
	frame_number(&frame, TAG_STARTED_NS, shim.exit.started_ns);
	control_send(&frame);
}

/*
 * From /proc: prlimit of another user's process needs CAP_SYS_RESOURCE, which the host may not have. The lines are in the
 * order of the limits' numbers, in columns of fixed width.
 */
static void read_limits(pid_t pid)
{
	char path[64], text[4096];
	snprintf(path, sizeof path, "/proc/%d/limits", (int)pid);
	ssize_t length = read_small_file(AT_FDCWD, path, text, sizeof text - 1);
	text[length > 0 ? length : 0] = 0;
	const char *line = text;
	for (int kind = 0; kind < 16; kind++) {
		struct rlimit *limit = &shim.limits[kind];
		getrlimit(kind, limit);
		line = strchr(line, '\n');
		if (line == NULL || strlen(++line) < 68)
			return;
		limit->rlim_cur = line[26] == 'u' ? RLIM_INFINITY : strtoull(line + 26, NULL, 10);
		limit->rlim_max = line[47] == 'u' ? RLIM_INFINITY : strtoull(line + 47, NULL, 10);
	}
}

/* Without a word about it in the launch an exec gets what the runtime has given to the process. */
static void take_oom_score(void)
{
	char path[64], text[32];
	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", (int)shim.pid);
	if (read_small_file(AT_FDCWD, path, text, sizeof text) > 0) {
		shim.launch.oom_score = atoi(text);
		shim.launch.has_oom_score = true;
	}
}

static void runtime_ended(int status)
{
	pid_t pid = -1;
	shim.runtime_pid = 0;
	close_child_ends();
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		pid = runtime_read_pid(&shim);
	if (pid > 0)
		shim.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pid < 0 || shim.pidfd < 0) {
		char text[16384];
		runtime_read_error(&shim, text, sizeof text);
		watch_close(&shim.console);
		start_failed(text);
		return;
	}
	shim.pid = pid;
	shim.state = STATE_RUNNING;
	shim.exit.started_ns = realtime_ns();
	/* An exec gets the limits the process was given, whatever it makes of them later. */
	read_limits(pid);
	runtime_take_console(&shim);
	if (!shim.launch.has_oom_score)
		take_oom_score();
	report_started();
	control_start_settled(true);
	stdio_begin(&shim.io);
}

/* The end of the container. */

void shim_fill_exit(struct frame *frame)
{
	frame_number(frame, TAG_EXIT_CODE, (uint64_t)shim.exit.code);
	frame_number(frame, TAG_STARTED_NS, shim.exit.started_ns);
	frame_number(frame, TAG_FINISHED_NS, shim.exit.finished_ns);
	frame_number(frame, TAG_OOM_KILLED, shim.exit.oom_killed);
	frame_number(frame, TAG_DROPPED_LINES, shim.exit.dropped_lines);
}

static void container_ended(int code)
{
	shim.exit.finished_ns = realtime_ns();
	shim.exit.code = code;
	shim.exit.oom_killed = cgroup_oom_killed(shim.launch.cgroup_path);
	stdio_drain(&shim.io);
	shim.exit.dropped_lines = shim.log.dropped_lines;
	shim.state = STATE_EXITED;
	shim.exited_ms = monotonic_ms();
	/* A disk that takes no record: the daemon is told all the same, and the record is tried once more at the end. */
	if (exit_record_write(shim.state_dir, &shim.exit) < 0)
		exit_record_write(shim.state_dir, &shim.exit);
	struct frame frame;
	frame_begin(&frame, FRAME_EXITED);
	shim_fill_exit(&frame);
	control_send(&frame);
	shim.acknowledged = !control_connected();
	exec_container_gone();
	/* Without a pid namespace of its own there may be others that still write: clients get that for a while. */
	timer_arm(&shim.flush, stdio_output_ended(&shim.io) ? 0 : FLUSH_WAIT_MS);
	timer_arm(&shim.clean, 0);
}

static void flush_end(struct timer *timer)
{
	(void)timer;
	stdio_drain(&shim.io);
	stdio_finish(&shim.io);
	shim_review_soon();
}

static int exit_code_of(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void children_ready(struct watch *watch, uint32_t events)
{
	struct signalfd_siginfo info[8];
	(void)events;
	while (read(watch->fd, info, sizeof info) > 0)
		;
	int status;
	/* While the runtime runs, its pid alone: the container's process is not known yet and must stay to be waited for. */
	if (shim.runtime_pid > 0) {
		pid_t ended = waitpid(shim.runtime_pid, &status, WNOHANG);
		if (ended == 0)
			return;
		runtime_ended(ended < 0 ? 0x100 : status);
	}
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		/* An exec's pid is told before it may run: by now it can be known, whenever it was that it ended. */
		exec_settle();
		if (pid == shim.pid && shim.state == STATE_RUNNING)
			container_ended(exit_code_of(status));
		else
			exec_reaped(pid, exit_code_of(status));
	}
}

/* Cgroups take a moment to become empty; nobody waits for this. */
static void clean(struct timer *timer)
{
	if (!shim.cleaned) {
		cgroup_kill(shim.launch.cgroup_path);
		runtime_remove_state(&shim.launch);
		ports_release();
		shim.clean_delay_ms = CLEAN_FIRST_MS;
		shim.cleaned = true;
	}
	if (!cgroup_remove(shim.launch.cgroup_path) && monotonic_ms() - shim.exited_ms < CLEAN_GIVE_UP_MS) {
		cgroup_kill(shim.launch.cgroup_path);
		timer_arm(timer, shim.clean_delay_ms);
		if (shim.clean_delay_ms < 100)
			shim.clean_delay_ms *= 2;
		return;
	}
	shim_review_soon();
}

void shim_abandon(void)
{
	if (shim.state != STATE_CREATED)
		return;
	shim.state = STATE_EXITED;
	shim.exited_ms = monotonic_ms();
	shim.acknowledged = true;
	stdio_finish(&shim.io);
	timer_arm(&shim.clean, 0);
}

void shim_control_lost(void)
{
	shim.acknowledged = true;
	if (shim.state == STATE_CREATED)
		shim_abandon();
	shim_review_soon();
}

void shim_exit_acknowledged(void)
{
	shim.acknowledged = true;
	shim_review_soon();
}

void shim_review_soon(void)
{
	if (!shim.linger.armed || shim.linger.due_ms > monotonic_ms())
		timer_arm(&shim.linger, 0);
}

static void end_when_nothing_is_left(struct timer *timer)
{
	if (shim.state != STATE_EXITED)
		return;
	if (!shim.flush.armed && !shim.io.finishing)
		stdio_finish(&shim.io);
	if (shim.flush.armed && stdio_output_ended(&shim.io)) {
		timer_cancel(&shim.flush);
		stdio_finish(&shim.io);
	}
	bool waited = monotonic_ms() - shim.exited_ms > ACK_WAIT_MS;
	bool settled = shim.cleaned && !shim.clean.armed && !shim.flush.armed && (shim.acknowledged || waited);
	if (settled)
		shim_tear_down();
	if (!settled || shim.io.clients != NULL || (exec_any() && !waited)) {
		timer_arm(timer, 1000);
		return;
	}
	shim.done = true;
}

static void receive_launch(int control)
{
	struct timeval patience = { .tv_sec = LAUNCH_TIMEOUT_S };
	uint8_t header[4];
	setsockopt(control, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	uint32_t length = read_full(control, header, sizeof header) == 0 ? frame_length(header) : 0;
	uint8_t *body = length == 0 ? NULL : malloc(length);
	if (body == NULL || read_full(control, body, length) < 0)
		_exit(1);
	if (body[0] == FRAME_QUIT) {
		kill(getppid(), SIGTERM);
		_exit(0);
	}
	if (body[0] == FRAME_ANNOUNCE) {
		cgroup_wait_grace_period(launcher_cgroup);
		_exit(0);
	}
	struct failure failure = { .number = EPROTO, .stage = "launch", .text = "not a launch frame" };
	if (body[0] != FRAME_LAUNCH || !launch_parse(&shim.launch, body + 1, length - 1, &failure))
		refuse(control, &failure);
	free(body);
}

static void set_up_process(void)
{
	sigset_t blocked;
	setsid();
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	prctl(PR_SET_NAME, "skiff-shim", 0, 0, 0);
	signal(SIGCHLD, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	/* Only SIGKILL ends a shim: a terminal's or an administrator's SIGTERM must not take a container with it. */
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGCHLD);
	sigprocmask(SIG_SETMASK, &blocked, NULL);
	watch_init(&shim.children, signalfd(-1, &blocked, SFD_CLOEXEC | SFD_NONBLOCK), children_ready);
	if (shim.children.fd < 0 || loop_init() < 0)
		_exit(1);
	watch_for(&shim.children, EPOLLIN);
}

_Noreturn void shim_main(int control)
{
	memset(&shim, 0, sizeof shim);
	shim.pidfd = shim.listener.fd = shim.console.fd = -1;
	for (int i = 0; i < 3; i++)
		shim.child_fds[i] = -1;
	shim.flush.fire = flush_end;
	shim.clean.fire = clean;
	shim.linger.fire = end_when_nothing_is_left;
	receive_launch(control);
	char title[64];
	snprintf(title, sizeof title, "skiff-shim %.12s", shim.launch.id);
	process_rename(title);
	set_up_process();
	cgroup_begin_grace_period(launcher_cgroup);
	shim.state = STATE_CREATED;
	struct failure failure = { 0 };
	if (shim_set_up(&failure) < 0) {
		shim_tear_down();
		refuse(control, &failure);
	}
	set_nonblocking(control, true);
	control_adopt(control);
	send_ready();
	loop_run(&shim.done);
	_exit(0);
}
