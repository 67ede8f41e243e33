/**
 * The flush queue's timer, as the kernel's timer wheel has it: whole ticks, and one more, so that a
 * timer of 10 ms at 250 ticks a second expires 12 to 16 ms after it was armed.
 *
 * Source: kernel/time/timer.c: mod_timer, calc_index; include/linux/jiffies.h:msecs_to_jiffies.
 * Recordings of Linux 7.2 at 250 Hz agree. It expires on the CPU that armed it.
 */
import type { FlushTimer } from "../../dma/flush-queue.ts";

/** Length of a tick at CONFIG_HZ=250, the default of most distributions. */
export const TICK_MS = 4;

/** One timer. */
export class WheelTimer implements FlushTimer {
  /** When it expires; infinity while it is not armed. */
  dueMs = Number.POSITIVE_INFINITY;
  /** CPU that armed it. */
  cpu = 0;
  /** Time and CPU of whoever is at work; set before the queue is called. */
  nowMs = 0;
  workingCpu = 0;

  arm(dueMs: number): void {
    // A difference of two times is off by less than a nanosecond.
    const ticks = Math.ceil((dueMs - this.nowMs - 1e-6) / TICK_MS);
    this.dueMs = (Math.floor(this.nowMs / TICK_MS) + ticks + 1) * TICK_MS;
    this.cpu = this.workingCpu;
  }

  /** Forgets that it was armed: it expires now. */
  expire(): void {
    this.dueMs = Number.POSITIVE_INFINITY;
  }
}
