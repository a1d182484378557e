#include "shim.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "exec-child.h"
#include "io.h"

/*
 * Execs of the container, the shim's side. Each comes over a connection of its own, which becomes its stdio when it is
 * attached; its exit code goes over the control channel and is kept until the daemon has acknowledged it.
 */

#define EXECS_MAX 4096
#define EXITS_KEPT_MAX 256
/* Docker waits as long for what an exec's children still write after it has ended. */
#define LINGER_MS 2000

struct exec {
	struct exec *next;
	char *id;
	pid_t pid;
	/* Its connection while it is not yet known to run. */
	int reply;
	bool attached;
	unsigned streams;
	bool started, failed, exited, reported, acknowledged, over;
	int code;
	struct stdio io;
	struct watch status;
	struct timer linger;
	struct timer review;
};

static struct exec *execs;
static unsigned exec_count;

static void review(struct timer *timer);

static void exec_forget(struct exec *exec)
{
	for (struct exec **at = &execs; *at != NULL; at = &(*at)->next) {
		if (*at == exec) {
			*at = exec->next;
			break;
		}
	}
	exec_count--;
	timer_cancel(&exec->linger);
	timer_cancel(&exec->review);
	timer_cancel(&exec->io.stall);
	timer_cancel(&exec->io.reopen);
	watch_close(&exec->status);
	free(exec->id);
	free_later(exec);
	shim_review_soon();
}

static void changed(struct stdio *io)
{
	struct exec *exec = container_of(io, struct exec, io);
	timer_arm(&exec->review, 0);
}

static void finish_streams(struct timer *timer)
{
	struct exec *exec = container_of(timer, struct exec, linger);
	stdio_drain(&exec->io);
	stdio_finish(&exec->io);
	exec->over = true;
	timer_arm(&exec->review, 0);
}

static void review(struct timer *timer)
{
	struct exec *exec = container_of(timer, struct exec, review);
	if (exec->exited && !exec->over && stdio_output_ended(&exec->io)) {
		timer_cancel(&exec->linger);
		finish_streams(&exec->linger);
		return;
	}
	if (exec->over && exec->io.clients == NULL && (exec->acknowledged || exec->failed))
		exec_forget(exec);
}

static void report(struct exec *exec)
{
	struct frame frame;
	frame_begin(&frame, FRAME_EXEC_EXITED);
	frame_text(&frame, TAG_ID, exec->id);
	frame_number(&frame, TAG_EXIT_CODE, (uint64_t)exec->code);
	control_send(&frame);
	exec->reported = control_connected();
}

static void answer_failure(int fd, int stage, int number, const char *text)
{
	struct frame frame;
	frame_begin(&frame, FRAME_EXEC_FAILED);
	frame_number(&frame, TAG_STAGE, (uint64_t)stage);
	frame_number(&frame, TAG_ERRNO, (uint64_t)number);
	frame_text(&frame, TAG_TEXT, text);
	frame_send_once(fd, &frame);
	close(fd);
}

/* The status socket's end: the program runs. Its connection becomes its stdio. */
static void exec_started(struct exec *exec)
{
	struct frame frame;
	watch_close(&exec->status);
	exec->started = true;
	frame_begin(&frame, FRAME_EXEC_STARTED);
	frame_number(&frame, TAG_PID, (uint64_t)exec->pid);
	frame_send_once(exec->reply, &frame);
	if (!exec->attached || !stdio_attach(&exec->io, exec->reply, exec->streams)) {
		close(exec->reply);
		stdio_end_input(&exec->io);
	}
	exec->reply = -1;
	stdio_begin(&exec->io);
}

static void exec_failed(struct exec *exec, const struct exec_status *status)
{
	watch_close(&exec->status);
	exec->failed = exec->over = true;
	answer_failure(exec->reply, status->stage, status->value, status->text);
	exec->reply = -1;
	stdio_finish(&exec->io);
	timer_arm(&exec->review, 0);
}

/* One message; returns false when there is none now. */
static bool take_status(struct exec *exec)
{
	struct exec_status status = { 0 };
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = { &status, sizeof status };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = sizeof control };
	ssize_t n = recvmsg(exec->status.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return false;
	if (n == 0) {
		struct exec_status vanished = { .value = ESRCH, .stage = EXEC_STAGE_JOIN, .text = "the process ended" };
		if (exec->pid > 0)
			exec_started(exec);
		else
			exec_failed(exec, &vanished);
		return false;
	}
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (header != NULL && header->cmsg_type == SCM_RIGHTS) {
		int master;
		memcpy(&master, CMSG_DATA(header), sizeof master);
		stdio_set_console(&exec->io, master);
	}
	status.text[sizeof status.text - 1] = 0;
	if (status.message == EXEC_PID)
		exec->pid = status.value;
	if (status.message == EXEC_ERROR) {
		exec_failed(exec, &status);
		return false;
	}
	return true;
}

static void status_ready(struct watch *watch, uint32_t events)
{
	struct exec *exec = container_of(watch, struct exec, status);
	(void)events;
	while (exec->status.fd >= 0 && take_status(exec))
		;
}

void exec_settle(void)
{
	for (struct exec *exec = execs; exec != NULL; exec = exec->next)
		while (exec->status.fd >= 0 && take_status(exec))
			;
}

/* Forks the process. 0, or an errno. */
static int spawn(struct exec *exec, struct exec_request *request)
{
	int status[2];
	bool terminal = (request->flags & EXEC_TERMINAL) != 0;
	stdio_init(&exec->io, terminal, true, NULL, changed);
	if (!terminal && stdio_open_pipes(&exec->io, (request->flags & EXEC_OPEN_STDIN) != 0, request->stdio) < 0)
		return errno;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status) < 0)
		return errno;
	pid_t pid = fork();
	if (pid == 0) {
		close(status[0]);
		exec_child(request, status[1]);
	}
	int failed = pid < 0 ? errno : 0;
	close(status[1]);
	for (int i = 0; !terminal && i < 3; i++)
		close(request->stdio[i]);
	watch_init(&exec->status, status[0], status_ready);
	watch_for(&exec->status, EPOLLIN);
	return failed;
}

static bool in_use(const char *id)
{
	for (struct exec *exec = execs; exec != NULL; exec = exec->next)
		if (strcmp(exec->id, id) == 0)
			return true;
	return false;
}

void exec_open(int fd, const uint8_t *fields, size_t length)
{
	struct exec_request request = { .leader = shim.pid, .leader_pidfd = shim.pidfd,
					.cgroup_path = shim.launch.cgroup_path, .limits = shim.limits,
					.has_oom_score = shim.launch.has_oom_score,
					.oom_score = shim.launch.oom_score };
	if (!exec_request_parse(&request, fields, length) || in_use(request.id)) {
		answer_failure(fd, EXEC_STAGE_JOIN, EINVAL, "the exec frame is malformed");
		exec_request_release(&request);
		return;
	}
	if (shim.state != STATE_RUNNING || exec_count >= EXECS_MAX) {
		answer_failure(fd, EXEC_STAGE_JOIN, shim.state != STATE_RUNNING ? ESRCH : EAGAIN,
			       shim.state != STATE_RUNNING ? "container is not running" : "too many execs");
		exec_request_release(&request);
		return;
	}
	struct exec *exec = must_allocate(sizeof *exec);
	exec->id = must_copy(request.id);
	exec->reply = fd;
	exec->streams = (unsigned)request.flags & (STREAM_STDIN | STREAM_STDOUT | STREAM_STDERR);
	exec->attached = exec->streams != 0;
	exec->linger.fire = finish_streams;
	exec->review.fire = review;
	watch_init(&exec->status, -1, status_ready);
	exec->next = execs;
	execs = exec;
	exec_count++;
	int failed = spawn(exec, &request);
	exec_request_release(&request);
	if (failed != 0) {
		struct exec_status status = { .value = failed, .stage = EXEC_STAGE_JOIN };
		snprintf(status.text, sizeof status.text, "%s", strerror(failed));
		exec_failed(exec, &status);
	}
}

int exec_resize(const char *id, unsigned rows, unsigned columns)
{
	for (struct exec *exec = execs; exec != NULL; exec = exec->next)
		if (strcmp(exec->id, id) == 0 && !exec->over)
			return stdio_resize(&exec->io, rows, columns) < 0 ? errno : 0;
	return ESRCH;
}

void exec_acknowledge(const char *id)
{
	for (struct exec *exec = execs; exec != NULL; exec = exec->next) {
		if (strcmp(exec->id, id) != 0)
			continue;
		exec->acknowledged = true;
		timer_arm(&exec->review, 0);
	}
}

/* Without a daemon exits pile up: the oldest are given up. The list has the newest first. */
static void bound_kept_exits(void)
{
	unsigned kept = 0;
	for (struct exec *exec = execs; exec != NULL; exec = exec->next) {
		if (!exec->exited || exec->acknowledged || ++kept <= EXITS_KEPT_MAX)
			continue;
		exec->acknowledged = true;
		timer_arm(&exec->review, 0);
	}
}

void exec_reaped(pid_t pid, int code)
{
	for (struct exec *exec = execs; exec != NULL; exec = exec->next) {
		if (exec->pid != pid || exec->exited)
			continue;
		exec->exited = true;
		exec->code = code;
		status_ready(&exec->status, 0);
		if (exec->failed)
			return;
		/*
		 * An error would have been said before the end. The socket's own end may still be to come: the child that
		 * joined the container holds a copy until it has exited too. What was written must not be read before
		 * there is somebody to have it.
		 */
		if (!exec->started)
			exec_started(exec);
		stdio_drain(&exec->io);
		report(exec);
		bound_kept_exits();
		bool at_end = stdio_output_ended(&exec->io) || shim.state == STATE_EXITED;
		timer_arm(&exec->linger, at_end ? 0 : LINGER_MS);
		return;
	}
}

void exec_report_all(void)
{
	for (struct exec *exec = execs; exec != NULL; exec = exec->next)
		if (exec->exited && !exec->acknowledged && !exec->failed)
			report(exec);
}

void exec_container_gone(void)
{
	for (struct exec *exec = execs; exec != NULL; exec = exec->next)
		if (exec->exited && !exec->over)
			timer_arm(&exec->linger, 0);
}

bool exec_any(void)
{
	for (struct exec *exec = execs; exec != NULL; exec = exec->next)
		if (!exec->over || exec->io.clients != NULL || (control_connected() && !exec->acknowledged && !exec->failed))
			return true;
	return false;
}
