// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/memory.h"

#include "daemon/util.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

static void spare_from_oom_killer(void)
{
	int fd __cleanup(cleanup_close) = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	/* After the initrd there may be no /proc in our root; the value was inherited. */
	if (fd < 0 && errno == ENOENT)
		return;
	if (fd < 0 || write(fd, "-1000", 5) != 5)
		log_line("oom_score_adj: %s", strerror(errno));
}

void memory_protect(void)
{
	spare_from_oom_killer();
	/* One arena: each further one reserves 64 MiB of address space. */
	mallopt(M_ARENA_MAX, 1);
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))
		log_line("PR_SET_IO_FLUSHER: %s", strerror(errno));
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		log_line("mlockall: %s", strerror(errno));
}
