/* A processor's newer instructions hidden from one program, to measure what an older processor would run.

       gcc -shared -fPIC -O1 -o hide_vnni.so benchmarks/hide_vnni.c
       LD_PRELOAD=./hide_vnni.so HIDE=avx512 python benchmarks/deploy.py ...

   Libraries choose their kernels by the instruction CPUID. Linux lets a program have a signal in its place, if the
   processor can (arch_prctl, ARCH_SET_CPUID); here the true answer is given without AVX-512, AMX and AVX-VNNI
   (HIDE=avx512: AVX2 is left), or without VNNI and AMX alone (HIDE=vnni: AVX-512 is left). Clock and caches stay those
   of the processor at hand. */

#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (1u << (n))
/* Of leaf 7: what EBX, ECX and EDX say at subleaf 0, EAX and EDX at subleaf 1. */
#define AVX512_EBX (BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31))
#define AVX512_ECX (BIT(1) | BIT(6) | BIT(12) | BIT(14))
#define AVX512_EDX (BIT(2) | BIT(3) | BIT(8) | BIT(23))
#define AVX512_EAX1 BIT(5)
#define VNNI_ECX BIT(11)
#define AMX_EDX (BIT(22) | BIT(24) | BIT(25))
#define VNNI_EAX1 (BIT(4) | BIT(21) | BIT(23))
#define VNNI_EDX1 (BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19))

static int all_of_avx512;

static void trap(int on) { syscall(SYS_arch_prctl, ARCH_SET_CPUID, on ? 0ul : 1ul); }

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    unsigned leaf = registers[REG_RAX], subleaf = registers[REG_RCX], a, b, c, d;
    (void)info;
    if (code[0] != 0x0f || code[1] != 0xa2) { /* a fault of the program's own */
        signal(number, SIG_DFL);
        return;
    }
    trap(0);
    __cpuid_count(leaf, subleaf, a, b, c, d);
    trap(1);
    if (leaf == 7 && subleaf == 0) {
        b &= all_of_avx512 ? ~AVX512_EBX : ~0u;
        c &= ~(VNNI_ECX | (all_of_avx512 ? AVX512_ECX : 0));
        d &= ~(AMX_EDX | (all_of_avx512 ? AVX512_EDX : 0));
    }
    if (leaf == 7 && subleaf == 1) {
        a &= ~(VNNI_EAX1 | (all_of_avx512 ? AVX512_EAX1 : 0));
        d &= ~VNNI_EDX1;
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
    const char *hide = getenv("HIDE");
    struct sigaction action;
    if (!hide || (strcmp(hide, "avx512") && strcmp(hide, "vnni"))) {
        fprintf(stderr, "HIDE=%s: allowed avx512, vnni\n", hide ? hide : "");
        _exit(2);
    }
    all_of_avx512 = !strcmp(hide, "avx512");
    memset(&action, 0, sizeof action);
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigaction(SIGSEGV, &action, NULL);
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0ul)) {
        perror("this processor cannot hide instructions (ARCH_SET_CPUID)");
        _exit(2);
    }
}
