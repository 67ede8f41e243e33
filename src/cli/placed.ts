/** Gives what goes wrong in a run the place in the input that it comes from. */
import { type Position, StackError } from "../errors.ts";

/** Does the work; an error of input without a position of its own gets this one. */
export function placed<T>(at: Position | null, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    const isBare = cause instanceof StackError && cause.kind === "input" && cause.at === undefined;
    if (!isBare || at === null) throw cause;
    const { code, kind, message, hint } = cause;
    throw new StackError({
      code: code as `${string}/${string}`,
      kind,
      message,
      at,
      ...(hint === undefined ? {} : { hint }),
      cause,
    });
  }
}
