/* The floor of a restore: all state of one vCPU and its VM set from bytes, in the
 * order that vmmd has, up to the guest's first exit. Usage: restore STATE MEMORY ROUNDS;
 * prints microseconds, a round a line. STATE has the structs of `struct state` end
 * to end, and after them the CPUID entries and the MSRs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { COM1_GSI = 4, KEYBOARD_GSI = 1, DEVICE_GSI = 5, EVENTS = 6 };

static struct state {
    struct kvm_mp_state mp;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_xsave xsave;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debug;
    struct kvm_lapic_state lapic;
    struct kvm_vcpu_events events;
    struct kvm_pit_state2 pit;
    struct kvm_clock_data clock;
    struct kvm_irqchip chip[3];
    uint32_t cpuid_entries, msr_entries;
} state;
static struct kvm_cpuid2 *cpuid;
static struct kvm_msrs *msrs;

static long check(long result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
    return result;
}
#define CHECK(what) check((what), #what)

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static void *read_more(int fd, size_t head, uint32_t count, size_t size)
{
    uint8_t *made = calloc(1, head + count * size);
    memcpy(made, &count, sizeof count);
    CHECK(read(fd, made + head, count * size) == (ssize_t)(count * size) ? 0 : -1);
    return made;
}

static void read_state(const char *path)
{
    int fd = (int)CHECK(open(path, O_RDONLY));
    CHECK(read(fd, &state, sizeof state) == sizeof state ? 0 : -1);
    cpuid = read_more(fd, sizeof *cpuid, state.cpuid_entries, sizeof *cpuid->entries);
    msrs = read_more(fd, sizeof *msrs, state.msr_entries, sizeof *msrs->entries);
    close(fd);
}

static void set_vcpu(int cpu)
{
    CHECK(ioctl(cpu, KVM_SET_CPUID2, cpuid));
    CHECK(ioctl(cpu, KVM_SET_MP_STATE, &state.mp));
    CHECK(ioctl(cpu, KVM_SET_REGS, &state.regs));
    CHECK(ioctl(cpu, KVM_SET_SREGS, &state.sregs));
    CHECK(ioctl(cpu, KVM_SET_XSAVE, &state.xsave));
    CHECK(ioctl(cpu, KVM_SET_XCRS, &state.xcrs));
    CHECK(ioctl(cpu, KVM_SET_DEBUGREGS, &state.debug));
    CHECK(ioctl(cpu, KVM_SET_LAPIC, &state.lapic));
    CHECK(ioctl(cpu, KVM_SET_MSRS, msrs) == (long)msrs->nmsrs ? 0 : -1);
    CHECK(ioctl(cpu, KVM_SET_VCPU_EVENTS, &state.events));
}

static void set_vm(int vm)
{
    CHECK(ioctl(vm, KVM_SET_PIT2, &state.pit));
    CHECK(ioctl(vm, KVM_SET_CLOCK, &state.clock));
    for (int i = 0; i < 3; i++)
        CHECK(ioctl(vm, KVM_SET_IRQCHIP, &state.chip[i]));
}

static void wire(int vm, int *fds)
{
    for (uint32_t i = 0; i < EVENTS; i++) {
        fds[i] = (int)CHECK(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
        struct kvm_irqfd irq = {.fd = (uint32_t)fds[i], .gsi = DEVICE_GSI + i};
        struct kvm_ioeventfd kick = {.addr = 0xc0001050 + 0x1000 * i, .len = 4, .fd = fds[i], .flags = KVM_IOEVENTFD_FLAG_DATAMATCH};
        CHECK(i < 2 ? ioctl(vm, KVM_IOEVENTFD, &kick) : ioctl(vm, KVM_IRQFD, &irq));
    }
}

static void restore_round(int kvm, const char *file)
{
    int fds[EVENTS];
    struct stat held;
    double start = now_us();
    int fd = (int)CHECK(open(file, O_RDONLY | O_CLOEXEC));
    CHECK(flock(fd, LOCK_SH | LOCK_NB));
    CHECK(fstat(fd, &held));
    size_t size = (size_t)held.st_size;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    CHECK(memory == MAP_FAILED ? -1 : 0);
    int vm = (int)CHECK(ioctl(kvm, KVM_CREATE_VM, 0));
    uint64_t identity = 0xfffbc000;
    CHECK(ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000));
    CHECK(ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity));
    struct kvm_userspace_memory_region region = {.memory_size = size, .userspace_addr = (uint64_t)memory};
    CHECK(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region));
    CHECK(ioctl(vm, KVM_CREATE_IRQCHIP, 0));
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    CHECK(ioctl(vm, KVM_CREATE_PIT2, &pit));
    int cpu = (int)CHECK(ioctl(vm, KVM_CREATE_VCPU, 0));
    size_t run_size = (size_t)CHECK(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
    struct kvm_run *run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
    CHECK(run == MAP_FAILED ? -1 : 0);
    set_vcpu(cpu);
    set_vm(vm);
    wire(vm, fds);
    while (ioctl(cpu, KVM_RUN, 0) < 0)
        CHECK(errno == EINTR || errno == EAGAIN ? 0 : -1);
    printf("%.1f\n", now_us() - start);
    for (int i = 0; i < EVENTS; i++)
        close(fds[i]);
    munmap(run, run_size);
    close(cpu);
    close(vm);
    munmap(memory, size);
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    read_state(argv[1]);
    int kvm = (int)CHECK(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    for (int i = atoi(argv[3]); i > 0; i--)
        restore_round(kvm, argv[2]);
    return 0;
}
