#include "stdio-client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "frame.h"
#include "io.h"

#define CLIENTS_MAX 1024
/* Buffered bytes at which the process waits for this client; the socket itself holds some 200 KiB before that. */
#define HEAVY (64 * 1024)
/* After the process has ended its last output may exceed that, once. */
#define BUFFER_MAX (4 * 1024 * 1024)
#define STALL_MS 1000
/* Less than this in a second is no progress: a reader of one byte a second shall not hold a container. */
#define PROGRESS_MIN (16 * 1024)
#define INPUT_CHUNK (16 * 1024)
/* How long a client that has got everything may take to close its end. */
#define CLOSE_WAIT_MS 10000
/* Clients that have gone while the process had not taken their input: beyond this the oldest one's is given up. */
#define HUNG_UP_MAX 32

struct client {
	struct watch watch;
	struct stdio *stdio;
	struct client *next;
	unsigned streams;
	bool input_open;
	/* The peer hung up while input of it was still unread. */
	bool hung_up;
	/* It has all output and its end; only its own end is still to come. */
	bool closing;
	bool dropping;
	uint64_t dropped;
	uint8_t *buffer;
	size_t at, length, room;
	int64_t mark_ms;
	size_t progress;
};

static void client_send(struct client *client, int stream, const uint8_t *data, size_t length);

static void client_watch(struct client *client)
{
	if (client->hung_up) {
		watch_pause(&client->watch);
		return;
	}
	bool input = client->input_open && (client->stdio->finishing || stdio_takes_input(client->stdio));
	watch_for(&client->watch, (input ? EPOLLIN : 0) | (client->length > 0 ? EPOLLOUT : 0));
}

/*
 * Unread bytes at close would turn the peer's end-of-file into a reset: both directions are shut first, so that
 * nothing more can arrive, and what is there is read.
 */
static void client_close(struct client *client)
{
	struct stdio *stdio = client->stdio;
	for (struct client **at = &stdio->clients; *at != NULL; at = &(*at)->next) {
		if (*at == client) {
			*at = client->next;
			break;
		}
	}
	stdio->client_count--;
	uint8_t rest[4096];
	shutdown(client->watch.fd, SHUT_RDWR);
	while (recv(client->watch.fd, rest, sizeof rest, MSG_DONTWAIT) > 0)
		;
	watch_close(&client->watch);
	free(client->buffer);
	bool had_input = client->input_open;
	client->input_open = false;
	free_later(client);
	if (had_input && (client->streams & STREAM_STDIN) != 0 && stdio->stdin_once)
		stdio_end_input(stdio);
	stdio->changed(stdio);
}

static void input_is_over(struct client *client)
{
	client->input_open = false;
	if ((client->streams & STREAM_STDIN) != 0 && client->stdio->stdin_once)
		stdio_end_input(client->stdio);
}

/*
 * The end of the output. The socket itself stays open until the peer closes it: a peer that writes into a closed one gets
 * EPIPE, and gives up what it has not read yet.
 */
static bool client_end_output(struct client *client)
{
	if (!client->input_open) {
		client_close(client);
		return false;
	}
	if (!client->closing) {
		client->closing = true;
		client->mark_ms = monotonic_ms();
		shutdown(client->watch.fd, SHUT_WR);
	}
	client_watch(client);
	return true;
}

/* Returns false when the client is gone. */
static bool client_input(struct client *client)
{
	static uint8_t chunk[INPUT_CHUNK];
	struct stdio *stdio = client->stdio;
	while (client->input_open && (stdio->finishing || stdio_takes_input(stdio))) {
		ssize_t n = recv(client->watch.fd, chunk, sizeof chunk, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			input_is_over(client);
			break;
		}
		if ((client->streams & STREAM_STDIN) != 0 && !stdio->finishing)
			stdio_input(stdio, chunk, (size_t)n);
	}
	if ((client->hung_up || client->closing) && !client->input_open) {
		client_close(client);
		return false;
	}
	client_watch(client);
	return true;
}

void clients_pump_input(struct stdio *stdio)
{
	struct client *next;
	for (struct client *client = stdio->clients; client != NULL; client = next) {
		next = client->next;
		client_input(client);
	}
}

static void announce_drop(struct client *client)
{
	char text[96];
	int length = snprintf(text, sizeof text, "\r\n[skiff: %llu bytes of output dropped: not read in time]\r\n",
			      (unsigned long long)client->dropped);
	client->dropped = 0;
	int stream = (client->streams & STREAM_STDERR) != 0 && !client->stdio->terminal ? 1 : 0;
	client_send(client, stream, (const uint8_t *)text, (size_t)length);
}

/* Returns false when the client is gone. */
static bool client_flush(struct client *client)
{
	while (client->length > 0) {
		ssize_t n = send(client->watch.fd, client->buffer + client->at, client->length,
				 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			client_close(client);
			return false;
		}
		client->at += (size_t)n;
		client->length -= (size_t)n;
		client->progress += (size_t)n;
	}
	if (client->length == 0) {
		free(client->buffer);
		client->buffer = NULL;
		client->at = client->room = 0;
		if (client->dropping) {
			client->dropping = false;
			announce_drop(client);
		}
	}
	if (client->stdio->finishing && client->length == 0)
		return client_end_output(client);
	client_watch(client);
	return true;
}

static void bound_hung_up(struct stdio *stdio)
{
	struct client *oldest = NULL;
	unsigned count = 0;
	for (struct client *client = stdio->clients; client != NULL; client = client->next) {
		if (client->hung_up) {
			oldest = client;
			count++;
		}
	}
	if (count > HUNG_UP_MAX)
		client_close(oldest);
}

static void client_ready(struct watch *watch, uint32_t events)
{
	struct client *client = container_of(watch, struct client, watch);
	struct stdio *stdio = client->stdio;
	if ((events & EPOLLOUT) != 0 && !client_flush(client)) {
		stdio_clients_changed(stdio);
		return;
	}
	if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
		/* Both directions are closed: nobody reads any more, but what was sent before still counts. */
		client->hung_up = true;
		client->streams &= STREAM_STDIN;
		client->length = 0;
	}
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
		client_input(client);
	bound_hung_up(stdio);
	stdio_clients_changed(stdio);
}

bool client_add(struct stdio *stdio, int fd, unsigned streams)
{
	if (stdio->client_count >= CLIENTS_MAX)
		return false;
	struct client *client = must_allocate(sizeof *client);
	client->stdio = stdio;
	client->streams = streams;
	client->input_open = true;
	set_nonblocking(fd, true);
	watch_init(&client->watch, fd, client_ready);
	client->next = stdio->clients;
	stdio->clients = client;
	stdio->client_count++;
	client_watch(client);
	return true;
}

static void buffer_rest(struct client *client, const struct iovec *parts, size_t skip)
{
	size_t total = parts[0].iov_len + parts[1].iov_len - skip;
	if (client->length == 0) {
		client->mark_ms = monotonic_ms();
		client->progress = 0;
	}
	if (client->at > 0 && client->length > 0)
		memmove(client->buffer, client->buffer + client->at, client->length);
	client->at = 0;
	if (client->length + total > client->room) {
		client->room = client->length + total;
		client->buffer = realloc(client->buffer, client->room);
		if (client->buffer == NULL)
			abort();
	}
	for (int i = 0; i < 2; i++) {
		size_t from = skip < parts[i].iov_len ? skip : parts[i].iov_len;
		skip -= from;
		memcpy(client->buffer + client->length, (uint8_t *)parts[i].iov_base + from,
		       parts[i].iov_len - from);
		client->length += parts[i].iov_len - from;
	}
	client_watch(client);
}

static void client_send(struct client *client, int stream, const uint8_t *data, size_t length)
{
	if (client->dropping || client->length > BUFFER_MAX) {
		client->dropping = true;
		client->dropped += length;
		return;
	}
	/* Docker's multiplexed stream: stream, three zeros, the length big-endian. A terminal's bytes go as they are. */
	uint8_t header[8] = { (uint8_t)(stream + 1), 0, 0, 0, (uint8_t)(length >> 24), (uint8_t)(length >> 16),
			      (uint8_t)(length >> 8), (uint8_t)length };
	struct iovec parts[2] = { { header, client->stdio->terminal ? 0 : sizeof header },
				  { (void *)(uintptr_t)data, length } };
	ssize_t n = 0;
	if (client->length == 0) {
		struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
		do
			n = sendmsg(client->watch.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
		while (n < 0 && errno == EINTR);
		if (n < 0 && errno != EAGAIN) {
			/* Gone; its hang-up event closes it, after its last input has been read. */
			client->streams &= STREAM_STDIN;
			return;
		}
	}
	size_t sent = n < 0 ? 0 : (size_t)n;
	if (sent < parts[0].iov_len + length)
		buffer_rest(client, parts, sent);
}

void clients_send(struct stdio *stdio, int stream, const uint8_t *data, size_t length)
{
	unsigned wanted = stream == 0 ? STREAM_STDOUT : STREAM_STDERR;
	for (struct client *client = stdio->clients; client != NULL; client = client->next)
		if ((client->streams & wanted) != 0)
			client_send(client, stream, data, length);
}

bool clients_heavy(const struct stdio *stdio)
{
	for (const struct client *client = stdio->clients; client != NULL; client = client->next)
		if (client->length >= HEAVY && !client->dropping)
			return true;
	return false;
}

void clients_check_stall(struct stdio *stdio)
{
	int64_t now = monotonic_ms();
	struct client *next;
	for (struct client *client = stdio->clients; client != NULL; client = next) {
		next = client->next;
		if (now - client->mark_ms < (client->closing ? CLOSE_WAIT_MS : STALL_MS))
			continue;
		bool stalled = client->closing || client->progress < PROGRESS_MIN;
		/*
		 * Its second is over, but what it leaves unread holds nobody yet: the moment that it does, it has had its
		 * time. A new one for each would let many stalled readers, heavy one after another, hold the process for
		 * a second each.
		 */
		if (stalled && !stdio->finishing && client->length < HEAVY)
			continue;
		client->mark_ms = now;
		client->progress = 0;
		if (!stalled)
			continue;
		if (stdio->finishing)
			client_close(client);
		else
			client->dropping = true;
	}
}

void clients_finish(struct stdio *stdio)
{
	int64_t now = monotonic_ms();
	struct client *next;
	for (struct client *client = stdio->clients; client != NULL; client = next) {
		next = client->next;
		client->mark_ms = now;
		client->progress = 0;
		/* Gone for good: it has nothing to take and nothing that anybody would read. */
		if (client->hung_up)
			client_close(client);
		else
			client_flush(client);
	}
}
