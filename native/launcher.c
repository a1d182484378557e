#include "roles.h"

int launcher_main(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return 2;
}
