#include "roles.h"

int netns_pool_main(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return 2;
}
