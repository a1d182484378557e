#include "stdio-stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frame.h"
#include "io.h"
#include "stdio-client.h"

#define CHUNK (64 * 1024)
/* What a dead process may have left: two pipes at their largest. Descendants outside its pid namespace may go on writing. */
#define DRAIN_MAX (2 * 1024 * 1024)
#define REOPEN_MS 100
#define STALL_TICK_MS 250

static uint8_t chunk[CHUNK];

static void output_ready(struct watch *watch, uint32_t events);
static void first_output_ready(struct watch *watch, uint32_t events);
static void second_output_ready(struct watch *watch, uint32_t events);
static void input_ready(struct watch *watch, uint32_t events);
static void input_pump(struct stdio *stdio);

static void watch_outputs(struct stdio *stdio)
{
	for (int i = 0; i < 2; i++) {
		uint32_t writing = stdio->terminal && stdio->pending_length > 0 ? EPOLLOUT : 0;
		if (stdio->reading && !stdio->paused)
			watch_for(&stdio->out[i], EPOLLIN | writing);
		else if (writing != 0)
			watch_for(&stdio->out[i], writing);
		else
			watch_pause(&stdio->out[i]);
	}
}

static void stall_tick(struct timer *timer)
{
	struct stdio *stdio = container_of(timer, struct stdio, stall);
	clients_check_stall(stdio);
	stdio_clients_changed(stdio);
}

/* The slave was closed by everyone; a process may open it again (a getty, an init system). */
static void reopen_tick(struct timer *timer)
{
	watch_outputs(container_of(timer, struct stdio, reopen));
}

void stdio_init(struct stdio *stdio, bool terminal, bool stdin_once, struct json_log *log,
		void (*changed)(struct stdio *))
{
	memset(stdio, 0, sizeof *stdio);
	stdio->terminal = terminal;
	stdio->stdin_once = stdin_once;
	stdio->log = log;
	stdio->changed = changed;
	stdio->stall.fire = stall_tick;
	stdio->reopen.fire = reopen_tick;
	watch_init(&stdio->out[0], -1, first_output_ready);
	watch_init(&stdio->out[1], -1, second_output_ready);
	watch_init(&stdio->in, -1, input_ready);
}

int stdio_open_pipes(struct stdio *stdio, bool open_stdin, int child[3])
{
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, err[2] = { -1, -1 };
	if (open_stdin ? pipe2(in, O_CLOEXEC) < 0 : (in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
		return -1;
	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0) {
		for (int i = 0; i < 2; i++) {
			if (in[i] >= 0)
				close(in[i]);
			if (out[i] >= 0)
				close(out[i]);
		}
		return -1;
	}
	set_nonblocking(out[0], true);
	set_nonblocking(err[0], true);
	if (in[1] >= 0)
		set_nonblocking(in[1], true);
	watch_init(&stdio->in, in[1], input_ready);
	watch_init(&stdio->out[0], out[0], first_output_ready);
	watch_init(&stdio->out[1], err[0], second_output_ready);
	child[0] = in[0];
	child[1] = out[1];
	child[2] = err[1];
	return 0;
}

void stdio_set_console(struct stdio *stdio, int master)
{
	set_nonblocking(master, true);
	watch_init(&stdio->out[0], master, first_output_ready);
	if (stdio->rows != 0 || stdio->columns != 0)
		stdio_resize(stdio, stdio->rows, stdio->columns);
	watch_outputs(stdio);
	clients_pump_input(stdio);
}

void stdio_begin(struct stdio *stdio)
{
	stdio->reading = true;
	watch_outputs(stdio);
}

bool stdio_attach(struct stdio *stdio, int fd, unsigned streams)
{
	return client_add(stdio, fd, streams);
}

bool stdio_output_ended(const struct stdio *stdio)
{
	return stdio->out[0].fd < 0 && stdio->out[1].fd < 0;
}

void stdio_clients_changed(struct stdio *stdio)
{
	bool heavy = !stdio->finishing && clients_heavy(stdio);
	if (heavy != stdio->paused) {
		stdio->paused = heavy;
		watch_outputs(stdio);
	}
	bool waiting = heavy || (stdio->finishing && stdio->clients != NULL);
	if (waiting && !stdio->stall.armed)
		timer_arm(&stdio->stall, STALL_TICK_MS);
	else if (!waiting)
		timer_cancel(&stdio->stall);
}

/* One read: log first, clients second. Returns the bytes read, 0 when there is nothing now, -1 at the end. */
static ssize_t read_output(struct stdio *stdio, int stream)
{
	struct watch *watch = &stdio->out[stream];
	ssize_t n;
	do
		n = read(watch->fd, chunk, CHUNK);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0)
		return -1;
	if (stdio->log != NULL)
		json_log_write(stdio->log, stream, chunk, (size_t)n);
	clients_send(stdio, stream, chunk, (size_t)n);
	return n;
}

static void end_output(struct stdio *stdio, int stream)
{
	if (stdio->log != NULL)
		json_log_end(stdio->log, stream);
	watch_close(&stdio->out[stream]);
}

static void output_ready(struct watch *watch, uint32_t events)
{
	int stream = watch->ready == second_output_ready;
	struct stdio *stdio = stream == 1 ? container_of(watch, struct stdio, out[1]) :
					    container_of(watch, struct stdio, out[0]);
	if ((events & EPOLLOUT) != 0)
		input_pump(stdio);
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0 || watch->fd < 0)
		return;
	if (stdio->paused || !stdio->reading) {
		watch_pause(watch);
		return;
	}
	ssize_t n = read_output(stdio, stream);
	if (n < 0 && stdio->terminal && !stdio->gone) {
		watch_pause(watch);
		timer_arm(&stdio->reopen, REOPEN_MS);
	} else if (n < 0) {
		end_output(stdio, stream);
		stdio->changed(stdio);
	}
	stdio_clients_changed(stdio);
}

static void first_output_ready(struct watch *watch, uint32_t events)
{
	output_ready(watch, events);
}

static void second_output_ready(struct watch *watch, uint32_t events)
{
	output_ready(watch, events);
}

void stdio_drain(struct stdio *stdio)
{
	stdio->gone = true;
	timer_cancel(&stdio->reopen);
	for (int stream = 0; stream < 2; stream++) {
		ssize_t n = 0, total = 0;
		while (stdio->out[stream].fd >= 0 && total < DRAIN_MAX && (n = read_output(stdio, stream)) > 0)
			total += n;
		if (stdio->out[stream].fd >= 0 && n < 0)
			end_output(stdio, stream);
	}
	stdio_clients_changed(stdio);
}

void stdio_finish(struct stdio *stdio)
{
	if (stdio->finishing)
		return;
	stdio->finishing = true;
	for (int stream = 0; stream < 2; stream++)
		if (stdio->out[stream].fd >= 0)
			end_output(stdio, stream);
	watch_close(&stdio->in);
	timer_cancel(&stdio->reopen);
	free(stdio->pending);
	stdio->pending = NULL;
	stdio->pending_length = 0;
	clients_finish(stdio);
	stdio_clients_changed(stdio);
}

int stdio_resize(struct stdio *stdio, unsigned rows, unsigned columns)
{
	struct winsize size = { .ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns };
	stdio->rows = rows;
	stdio->columns = columns;
	if (!stdio->terminal || stdio->out[0].fd < 0)
		return 0;
	return ioctl(stdio->out[0].fd, TIOCSWINSZ, &size);
}

/* Input. */

bool stdio_takes_input(const struct stdio *stdio)
{
	/* A terminal that is still to come keeps clients waiting; input without a taker is read and thrown away. */
	return stdio->pending_length == 0 && !(stdio->terminal && stdio->out[0].fd < 0 && !stdio->finishing);
}

static int input_fd(const struct stdio *stdio)
{
	return stdio->terminal ? stdio->out[0].fd : stdio->in.fd;
}

static void close_input(struct stdio *stdio)
{
	free(stdio->pending);
	stdio->pending = NULL;
	stdio->pending_length = 0;
	watch_close(&stdio->in);
}

void stdio_input(struct stdio *stdio, const uint8_t *data, size_t length)
{
	int fd = input_fd(stdio);
	if (fd < 0 || length == 0)
		return;
	ssize_t n;
	do
		n = write(fd, data, length);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN) {
		if (!stdio->terminal)
			close_input(stdio);
		return;
	}
	size_t written = n < 0 ? 0 : (size_t)n;
	if (written == length)
		return;
	stdio->pending = must_allocate(length - written);
	memcpy(stdio->pending, data + written, length - written);
	stdio->pending_at = 0;
	stdio->pending_length = length - written;
	if (stdio->terminal)
		watch_outputs(stdio);
	else
		watch_for(&stdio->in, EPOLLOUT);
}

void stdio_end_input(struct stdio *stdio)
{
	if (stdio->terminal)
		return;
	if (stdio->pending_length > 0)
		stdio->input_ending = true;
	else
		close_input(stdio);
}

static void input_pump(struct stdio *stdio)
{
	int fd = input_fd(stdio);
	if (fd >= 0 && stdio->pending_length > 0) {
		ssize_t n = write(fd, stdio->pending + stdio->pending_at, stdio->pending_length);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			close_input(stdio);
		} else {
			stdio->pending_at += (size_t)n;
			stdio->pending_length -= (size_t)n;
		}
	}
	if (stdio->pending_length > 0)
		return;
	free(stdio->pending);
	stdio->pending = NULL;
	if (stdio->terminal)
		watch_outputs(stdio);
	else
		watch_for(&stdio->in, 0);
	if (stdio->input_ending)
		close_input(stdio);
	clients_pump_input(stdio);
}

static void input_ready(struct watch *watch, uint32_t events)
{
	struct stdio *stdio = container_of(watch, struct stdio, in);
	if ((events & EPOLLERR) != 0) {
		/* The process closed its stdin: what else comes is thrown away. */
		close_input(stdio);
		clients_pump_input(stdio);
		return;
	}
	input_pump(stdio);
}
