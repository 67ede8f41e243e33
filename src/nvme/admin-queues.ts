/**
 * Creation and deletion of I/O queues (1.4, 5.3 to 5.6), with every reason to refuse.
 */
import { PAGE, QUEUE_ENTRIES_MAX, Sqe, Status } from "./protocol.ts";
import { type ControllerState, PENDING } from "./state.ts";

const CONTIGUOUS = 1;
const INTERRUPTS = 2;

/** An address from its halves; −1 for one of 2^53 or more, which is no memory. */
export function queueAddress(low: number, high: number): number {
  return high < 0x20_0000 ? high * 2 ** 32 + low : -1;
}

/** What both kinds of queue are checked for. `entryBits` is CC.IOSQES or CC.IOCQES. */
function refusal(command: Uint32Array, entryBits: number, entryBitsNeeded: number): number {
  const size = (command[Sqe.CDW10]! >>> 16) + 1;
  if (entryBits !== entryBitsNeeded) return Status.INVALID_FIELD;
  if (size < 2 || size > QUEUE_ENTRIES_MAX) return Status.QUEUE_SIZE;
  // CAP.CQR is set: queues are physically contiguous.
  if ((command[Sqe.CDW11]! & CONTIGUOUS) === 0) return Status.INVALID_FIELD;
  if (command[Sqe.DATA]! % PAGE !== 0) return Status.PRP_OFFSET;
  return Status.SUCCESS;
}

/** Create I/O Completion Queue. */
export function createCompletion(state: ControllerState, command: Uint32Array, cc: number): number {
  const id = command[Sqe.CDW10]! & 0xffff;
  const vector = command[Sqe.CDW11]! >>> 16;
  if (id === 0 || id > state.config.queues || state.completions[id] !== null)
    return Status.QUEUE_IDENTIFIER;
  const status = refusal(command, (cc >>> 20) & 15, 4);
  if (status !== Status.SUCCESS) return status;
  const hasInterrupts = (command[Sqe.CDW11]! & INTERRUPTS) !== 0;
  if (hasInterrupts && vector >= state.config.vectors) return Status.INTERRUPT_VECTOR;
  const queue = state.addCompletion({
    id,
    address: queueAddress(command[Sqe.DATA]!, command[Sqe.DATA + 1]!),
    size: (command[Sqe.CDW10]! >>> 16) + 1,
    vector: hasInterrupts ? vector : -1,
  });
  queue.begin();
  state.mustKeep = true;
  return Status.SUCCESS;
}

/** Create I/O Submission Queue. */
export function createSubmission(state: ControllerState, command: Uint32Array, cc: number): number {
  const id = command[Sqe.CDW10]! & 0xffff;
  const completion = command[Sqe.CDW11]! >>> 16;
  if (id === 0 || id > state.config.queues || state.submissions[id] !== null)
    return Status.QUEUE_IDENTIFIER;
  if (completion === 0 || completion > state.config.queues) return Status.QUEUE_IDENTIFIER;
  if (state.completions[completion] === null) return Status.COMPLETION_QUEUE_INVALID;
  const status = refusal(command, (cc >>> 16) & 15, 6);
  if (status !== Status.SUCCESS) return status;
  const queue = state.addSubmission({
    id,
    address: queueAddress(command[Sqe.DATA]!, command[Sqe.DATA + 1]!),
    size: (command[Sqe.CDW10]! >>> 16) + 1,
    completion,
  });
  queue.begin();
  state.mustKeep = true;
  return Status.SUCCESS;
}

/** Delete I/O Completion Queue: the last of its submission queues must be gone. */
export function deleteCompletion(state: ControllerState, command: Uint32Array): number {
  const id = command[Sqe.CDW10]! & 0xffff;
  const queue = id === 0 ? null : (state.completions[id] ?? null);
  if (queue === null) return Status.QUEUE_IDENTIFIER;
  if (queue.users > 0) return Status.QUEUE_DELETION;
  state.completions[id] = null;
  state.mustKeep = true;
  return Status.SUCCESS;
}

/**
 * Delete I/O Submission Queue. Commands on the queue are dropped; those that the store is at work
 * for are waited for: a discard must not end after the driver was told that the queue is gone.
 */
export function deleteSubmission(state: ControllerState, command: Uint32Array): number {
  const id = command[Sqe.CDW10]! & 0xffff;
  const queue = id === 0 ? null : (state.submissions[id] ?? null);
  if (queue === null || queue.isClosing) return Status.QUEUE_IDENTIFIER;
  queue.isClosing = true;
  state.slots.post();
  if (state.slots.countOf(queue) > 0) {
    state.slots.take(state.submissions[0]!);
    return PENDING;
  }
  state.removeSubmission(id);
  state.mustKeep = true;
  return Status.SUCCESS;
}
