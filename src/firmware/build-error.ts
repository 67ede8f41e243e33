/** What is said when a machine cannot be described in the wanted form. */
import { StackError } from "../errors.ts";

/** A machine that the description has no words for. */
export function cannotDescribe(as: string, message: string, hint: string): StackError {
  return new StackError({
    code: "firmware/cannot-describe",
    kind: "input",
    message: `${as}: ${message}`,
    hint,
  });
}
