/* A Cortex-M3 board of QEMU (mps2-an385): where it starts, and how many instructions a prediction takes.

   With -icount shift=0 QEMU takes one nanosecond per instruction, and SysTick counts its 25 MHz clock: 40 instructions
   per tick. Text goes out by semihosting (newlib's rdimon). */

#include <stdint.h>
#include <stdio.h>

#define PASTE(a, b) a##b
#define WRAPPED(name) PASTE(__wrap_, name)
#define REAL(name) PASTE(__real_, name)
#define PREDICT(name) PASTE(name, _predict)

extern uint32_t stack_top;
void _start(void);
__attribute__((section(".vectors"), used)) static const void *const vectors[] = {&stack_top, (const void *)_start};

#define TICKS 0xffffffu
#define PER_TICK 40u
static volatile uint32_t *const systick = (volatile uint32_t *)0xe000e010; /* control, reload, value */

void REAL(PREDICT(NAME))(const uint8_t *images, float *logits, void *workspace);
void WRAPPED(PREDICT(NAME))(const uint8_t *images, float *logits, void *workspace);

/* In the place of NAME_predict: the linker is told --wrap. */
void WRAPPED(PREDICT(NAME))(const uint8_t *images, float *logits, void *workspace)
{
    systick[1] = TICKS;
    systick[2] = 0;
    systick[0] = 5; /* on, the processor's clock */
    REAL(PREDICT(NAME))(images, logits, workspace);
    printf("%lu instructions\n", (unsigned long)((TICKS - systick[2]) * PER_TICK));
}
