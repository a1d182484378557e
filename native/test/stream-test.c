#include "../stdio-stream.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../frame.h"
#include "../io.h"
#include "check.h"

/* Streams with real pipes and sockets in one process: many clients that come, read, stall, write and go at random. */

static bool done;
static struct stdio io;

static void changed(struct stdio *stdio)
{
	(void)stdio;
}

static struct timer tick;
static void (*step)(void);

static void on_tick(struct timer *timer)
{
	step();
	timer_arm(timer, 0);
}

static int child[3];
static int peers[64];
static unsigned rounds;
static unsigned long long state = 99;
static size_t sent_total;

static void random_step(void)
{
	static uint8_t data[70000];
	unsigned slot = (unsigned)(next_random(&state) % 64);
	unsigned action = (unsigned)(next_random(&state) % 8);
	if (peers[slot] < 0 && action < 4) {
		int pair[2];
		CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
		peers[slot] = pair[0];
		CHECK(stdio_attach(&io, pair[1], (unsigned)(next_random(&state) % 8)));
	} else if (peers[slot] >= 0 && action == 0) {
		close(peers[slot]);
		peers[slot] = -1;
	} else if (peers[slot] >= 0 && action == 1) {
		shutdown(peers[slot], SHUT_WR);
	} else if (peers[slot] >= 0 && action < 4) {
		ssize_t n = send(peers[slot], data, next_random(&state) % 5000, MSG_NOSIGNAL | MSG_DONTWAIT);
		(void)n;
	} else if (peers[slot] >= 0) {
		ssize_t n = recv(peers[slot], data, next_random(&state) % sizeof data, MSG_DONTWAIT);
		(void)n;
	}
	if (action == 7) {
		ssize_t n = write(child[1 + slot % 2], data, next_random(&state) % 60000);
		sent_total += n > 0 ? (size_t)n : 0;
	}
	if (action == 6) {
		ssize_t n = read(child[0], data, sizeof data);
		(void)n;
	}
	done = ++rounds > 60000;
}

static void stop_now(struct timer *timer)
{
	(void)timer;
	done = true;
}

static void run_briefly(void)
{
	struct timer stop = { .fire = stop_now };
	done = false;
	timer_arm(&stop, 20);
	loop_run(&done);
}

static void test_random_clients(void)
{
	stdio_init(&io, false, false, NULL, changed);
	CHECK(stdio_open_pipes(&io, true, child) == 0);
	for (int i = 0; i < 3; i++)
		set_nonblocking(child[i], true);
	for (int i = 0; i < 64; i++)
		peers[i] = -1;
	stdio_begin(&io);
	tick.fire = on_tick;
	step = random_step;
	timer_arm(&tick, 0);
	loop_run(&done);
	CHECK(sent_total > 1000000);
	for (int i = 0; i < 3; i++)
		close(child[i]);
	stdio_drain(&io);
	CHECK(stdio_output_ended(&io));
	stdio_finish(&io);
	for (int i = 0; i < 64; i++)
		if (peers[i] >= 0)
			close(peers[i]);
	/* What is left has hung up or stalls: all are gone within the stall bound. */
	int64_t began = monotonic_ms();
	timer_cancel(&tick);
	while (io.clients != NULL && monotonic_ms() - began < 5000)
		run_briefly();
	CHECK(io.clients == NULL);
	CHECK(io.client_count == 0);
}

int main(void)
{
	CHECK(loop_init() == 0);
	test_random_clients();
	puts("stream: ok");
	return 0;
}
