#include "shim.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io.h"

/*
 * The daemon's side of a shim: one control channel, which a restarted daemon replaces by a new connection, and short
 * connections that begin with one frame saying what they are for. Every message is bounded, and a daemon that does
 * not read is dropped rather than waited for.
 */

#define OUT_MAX (512u * 1024u)
#define OPENING_MAX 64
#define OPENING_MS 10000

/* Bytes on their way in: one frame at a time, never more than it. */
struct inbox {
	uint8_t header[4];
	size_t header_length;
	uint8_t *body;
	uint32_t body_length;
	uint32_t body_got;
};

static struct watch control = { .fd = -1 };
static struct inbox control_in;
/* A daemon has connected while the runtime was running and has not been answered. */
static bool status_owed;
static uint8_t *control_out;
static size_t control_out_length;

/* 1: a whole frame is in `body`; 0: more is needed; -1: the peer is gone or talks nonsense. */
static int inbox_read(struct inbox *inbox, int fd)
{
	for (;;) {
		bool header = inbox->header_length < 4;
		uint8_t *into = header ? inbox->header + inbox->header_length : inbox->body + inbox->body_got;
		size_t wanted = header ? 4 - inbox->header_length : inbox->body_length - inbox->body_got;
		ssize_t n = recv(fd, into, wanted, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n <= 0)
			return -1;
		if (!header) {
			inbox->body_got += (uint32_t)n;
			if (inbox->body_got == inbox->body_length)
				return 1;
			continue;
		}
		inbox->header_length += (size_t)n;
		if (inbox->header_length < 4)
			continue;
		inbox->body_length = frame_length(inbox->header);
		if (inbox->body_length == 0)
			return -1;
		inbox->body = malloc(inbox->body_length);
		inbox->body_got = 0;
		if (inbox->body == NULL)
			return -1;
	}
}

static void inbox_reset(struct inbox *inbox)
{
	free(inbox->body);
	*inbox = (struct inbox){ 0 };
}

bool control_connected(void)
{
	return control.fd >= 0;
}

void control_close(void)
{
	watch_close(&control);
	inbox_reset(&control_in);
	free(control_out);
	control_out = NULL;
	control_out_length = 0;
}

static void control_lost(void)
{
	control_close();
	shim_control_lost();
}

static bool control_flush(void)
{
	size_t sent = 0;
	while (sent < control_out_length) {
		ssize_t n = send(control.fd, control_out + sent, control_out_length - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return false;
		if (n < 0)
			break;
		sent += (size_t)n;
	}
	control_out_length -= sent;
	if (control_out_length > 0) {
		memmove(control_out, control_out + sent, control_out_length);
	} else {
		free(control_out);
		control_out = NULL;
	}
	watch_for(&control, control_out_length > 0 ? EPOLLIN | EPOLLOUT : EPOLLIN);
	return true;
}

void control_send(struct frame *frame)
{
	frame_end(frame);
	if (control.fd >= 0 && control_out_length + frame->length <= OUT_MAX) {
		control_out = realloc(control_out, control_out_length + frame->length);
		if (control_out == NULL)
			abort();
		memcpy(control_out + control_out_length, frame->bytes, frame->length);
		control_out_length += frame->length;
		/* A failure shows as a hang-up in the loop: nothing is freed below a caller's feet. */
		control_flush();
	}
	frame_free(frame);
}

static void control_ok(uint64_t sequence)
{
	struct frame frame;
	frame_begin(&frame, FRAME_OK);
	frame_number(&frame, TAG_SEQUENCE, sequence);
	control_send(&frame);
}

void control_fail(uint64_t sequence, int number, const char *text)
{
	struct frame frame;
	frame_begin(&frame, FRAME_FAILED);
	frame_number(&frame, TAG_SEQUENCE, sequence);
	frame_number(&frame, TAG_ERRNO, (uint64_t)number);
	frame_text(&frame, TAG_TEXT, text);
	control_send(&frame);
}

/* The fields that control messages have. */
struct command {
	uint64_t sequence, signal, rows, columns;
	char *id;
};

static bool parse_command(struct command *command, const uint8_t *fields, size_t length)
{
	struct field_reader reader = { fields, fields + length };
	struct field field;
	int more;
	*command = (struct command){ 0 };
	while ((more = next_field(&reader, &field)) > 0) {
		uint64_t *place = field.tag == TAG_SEQUENCE ? &command->sequence :
				  field.tag == TAG_SIGNAL   ? &command->signal :
				  field.tag == TAG_ROWS	    ? &command->rows :
				  field.tag == TAG_COLUMNS  ? &command->columns :
							      NULL;
		if (place != NULL && !field_number(&field, place))
			return false;
		if (field.tag == TAG_ID) {
			free(command->id);
			command->id = field_text(&field);
		}
	}
	return more == 0;
}

static void answer(uint64_t sequence, int number)
{
	if (number == 0)
		control_ok(sequence);
	else
		control_fail(sequence, number, strerror(number));
}

static int send_signal(uint64_t number)
{
	if (number == 0 || number > 64)
		return EINVAL;
	if (shim.state != STATE_RUNNING)
		return ESRCH;
	return syscall(SYS_pidfd_send_signal, shim.pidfd, (int)number, NULL, 0) < 0 ? errno : 0;
}

static void obey(uint8_t type, const struct command *command)
{
	unsigned rows = (unsigned)command->rows, columns = (unsigned)command->columns;
	const char *id = command->id != NULL ? command->id : "";
	switch (type) {
	case FRAME_START:
		shim_start(command->sequence);
		break;
	case FRAME_SIGNAL:
		answer(command->sequence, send_signal(command->signal));
		break;
	case FRAME_RESIZE:
		answer(command->sequence, stdio_resize(&shim.io, rows, columns) < 0 ? errno : 0);
		break;
	case FRAME_EXEC_RESIZE:
		answer(command->sequence, exec_resize(id, rows, columns));
		break;
	case FRAME_ABANDON:
		shim_abandon();
		break;
	case FRAME_ACK_EXIT:
		shim_exit_acknowledged();
		break;
	case FRAME_ACK_EXEC:
		exec_acknowledge(id);
		break;
	default:
		/* A newer daemon: it learns that this shim does not know the message. */
		control_fail(command->sequence, ENOSYS, "unknown message");
	}
}

static void control_ready(struct watch *watch, uint32_t events)
{
	(void)watch;
	if ((events & EPOLLOUT) != 0 && !control_flush()) {
		control_lost();
		return;
	}
	while (control.fd >= 0) {
		int whole = inbox_read(&control_in, control.fd);
		if (whole == 0)
			break;
		struct command command;
		if (whole < 0 || !parse_command(&command, control_in.body + 1, control_in.body_length - 1)) {
			control_lost();
			return;
		}
		uint8_t type = control_in.body[0];
		inbox_reset(&control_in);
		obey(type, &command);
		free(command.id);
	}
}

void control_adopt(int fd)
{
	control_close();
	watch_init(&control, fd, control_ready);
	watch_for(&control, EPOLLIN);
}

void frame_send_once(int fd, struct frame *frame)
{
	frame_end(frame);
	/* The first bytes on this socket: they fit its buffer; a peer that is gone does not matter. */
	ssize_t sent = send(fd, frame->bytes, frame->length, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)sent;
	frame_free(frame);
}

/* Connections whose first frame is still to come. */
struct opening {
	struct watch watch;
	struct timer patience;
	struct inbox inbox;
};

static unsigned opening_count;

static void opening_end(struct opening *opening, bool close_it)
{
	if (close_it)
		watch_close(&opening->watch);
	else
		watch_pause(&opening->watch);
	opening->watch.fd = -1;
	timer_cancel(&opening->patience);
	inbox_reset(&opening->inbox);
	opening_count--;
	free_later(opening);
}

static void opening_late(struct timer *timer)
{
	opening_end(container_of(timer, struct opening, patience), true);
}

static void send_status(void)
{
	struct frame frame;
	frame_begin(&frame, FRAME_STATUS);
	frame_number(&frame, TAG_VERSION, PROTOCOL_VERSION);
	frame_text(&frame, TAG_ID, shim.launch.id);
	frame_number(&frame, TAG_PID, (uint64_t)shim.pid);
	frame_number(&frame, TAG_SHIM_PID, (uint64_t)getpid());
	frame_number(&frame, TAG_STATE, (uint64_t)shim.state);
	frame_number(&frame, TAG_STARTED_NS, shim.exit.started_ns);
	if (shim.state == STATE_EXITED)
		shim_fill_exit(&frame);
	control_send(&frame);
	exec_report_all();
}

/* While the runtime runs there is nothing definite to say: a new daemon waits for its end. */
static void open_control(int fd)
{
	control_adopt(fd);
	status_owed = shim.state == STATE_STARTING;
	if (!status_owed)
		send_status();
}

void control_start_settled(bool started)
{
	if (!status_owed)
		return;
	status_owed = false;
	if (started)
		send_status();
	else
		control_close();
}

static void open_attach(int fd, const uint8_t *fields, size_t length)
{
	struct field_reader reader = { fields, fields + length };
	struct field field;
	uint64_t streams = 0;
	while (next_field(&reader, &field) > 0)
		if (field.tag == TAG_FLAGS && !field_number(&field, &streams))
			streams = 0;
	struct frame frame;
	bool open = shim.state != STATE_EXITED;
	frame_begin(&frame, open ? FRAME_OK : FRAME_FAILED);
	if (!open)
		frame_text(&frame, TAG_TEXT, "the container has exited");
	frame_send_once(fd, &frame);
	if (!open || !stdio_attach(&shim.io, fd, (unsigned)streams & 7u))
		close(fd);
}

static void opening_ready(struct watch *watch, uint32_t events)
{
	struct opening *opening = container_of(watch, struct opening, watch);
	(void)events;
	int whole = inbox_read(&opening->inbox, watch->fd);
	if (whole == 0)
		return;
	const uint8_t *body = opening->inbox.body;
	size_t length = opening->inbox.body_length;
	if (whole < 0 || !fields_valid(body + 1, length - 1) ||
	    (body[0] != FRAME_OPEN_CONTROL && body[0] != FRAME_OPEN_ATTACH && body[0] != FRAME_OPEN_EXEC)) {
		opening_end(opening, true);
		return;
	}
	int fd = watch->fd;
	watch_pause(watch);
	if (body[0] == FRAME_OPEN_CONTROL)
		open_control(fd);
	else if (body[0] == FRAME_OPEN_ATTACH)
		open_attach(fd, body + 1, length - 1);
	else
		exec_open(fd, body + 1, length - 1);
	opening_end(opening, false);
}

void connection_accept(struct watch *listener, uint32_t events)
{
	(void)events;
	int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	struct ucred peer;
	socklen_t size = sizeof peer;
	if (opening_count >= OPENING_MAX || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
	    (peer.uid != 0 && peer.uid != geteuid())) {
		close(fd);
		return;
	}
	struct opening *opening = must_allocate(sizeof *opening);
	watch_init(&opening->watch, fd, opening_ready);
	opening->patience.fire = opening_late;
	timer_arm(&opening->patience, OPENING_MS);
	opening_count++;
	watch_for(&opening->watch, EPOLLIN);
}
