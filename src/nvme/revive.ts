/**
 * Takes up queues and unfinished commands where the journal's words say they are: after a planned
 * hand-over, or after a crash between any two stores. The rules are in `journal.ts`.
 */
import { StackError } from "../errors.ts";
import type { IoCommands } from "./io.ts";
import { QueueWord, SLOT_COUNT } from "./journal.ts";
import { AdminOpcode, Sqe, Status } from "./protocol.ts";
import type { ControllerState } from "./state.ts";

function refuse(id: number): never {
  throw new StackError({
    code: "pci/state",
    kind: "input",
    message: `a saved NVMe controller has positions outside queue ${id}`,
    hint: "the journal belongs to another state",
  });
}

/** Checks positions, finishes what a crash cut off, and has the last completions seen again. */
export function reviveQueues(state: ControllerState): void {
  const { journal, completions, submissions } = state;
  const { words } = journal;
  for (const queue of completions) {
    if (queue === null) continue;
    const { id, size } = queue.place;
    const at = journal.queueAt(id);
    if ((words[at + QueueWord.CQ_TAIL]! & 0xffff) >= size) refuse(id);
    if (words[at + QueueWord.CQ_HEAD]! >= size) refuse(id);
    journal.repair(id);
    queue.mustRepeat = journal.hasLast(id);
    queue.mustSignal = true;
  }
  for (const queue of submissions) {
    if (queue === null) continue;
    const { id, size } = queue.place;
    const at = journal.queueAt(id);
    if ((words[at + QueueWord.SQ_HEAD]! & 0xffff) >= size) refuse(id);
    if (words[at + QueueWord.SQ_TAIL]! >= size) refuse(id);
  }
}

/** Takes up unfinished commands; what the store did for them is done again from the start. */
export function reviveSlots(state: ControllerState, io: IoCommands): void {
  const { journal, slots, operations, submissions } = state;
  for (let index = 0; index < SLOT_COUNT; index += 1) {
    journal.repairSlot(index);
    const slot = slots.revive(index, (id) => submissions[id] ?? null);
    if (slot === null) continue;
    const opcode = slot.command[Sqe.HEAD]! & 0xff;
    if (slot.queue.place.id !== 0) {
      const work = io.workOf(slot.command);
      if (typeof work === "number") slots.finish(slot, work, 0);
      else slot.operation = operations.begin(work);
    } else if (opcode !== AdminOpcode.ASYNC_EVENT && opcode !== AdminOpcode.DELETE_SQ)
      slots.finish(slot, Status.INTERNAL_ERROR, 0);
  }
}
