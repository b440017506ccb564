/* The twin of exits.py: KVM_RUN in a loop in C, until a write to port `done`. */
#include <linux/kvm.h>
#include <stdint.h>
#include <sys/ioctl.h>

int run_exits(int fd, struct kvm_run *run, uint16_t done)
{
    for (;;) {
        if (ioctl(fd, KVM_RUN, 0) < 0)
            return -1;
        if (run->exit_reason != KVM_EXIT_IO)
            return -2;
        if (run->io.port == done)
            return 0;
    }
}
