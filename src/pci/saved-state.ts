/**
 * Reading of saved state: plain data that comes back from a journal or another process, and so may
 * be damaged or of another version.
 */
import { StackError } from "../errors.ts";

/** A saved object whose fields are taken one by one. */
export class SavedState {
  readonly #what: string;
  readonly #fields: Readonly<Record<string, unknown>>;

  /**
   * @param what - what the state is of, for the message
   * @throws StackError `pci/state` when it is no object
   */
  constructor(what: string, state: unknown) {
    this.#what = what;
    if (typeof state !== "object" || state === null || Array.isArray(state)) throw this.bad("it");
    this.#fields = state as Readonly<Record<string, unknown>>;
  }

  /** A field of any kind. */
  field(name: string): unknown {
    return this.#fields[name];
  }

  /** A number, an integer from 0 to `last`. */
  count(name: string, last: number): number {
    const value = this.#fields[name];
    if (typeof value !== "number" || !Number.isInteger(value)) throw this.bad(name);
    if (value < 0 || value > last) throw this.bad(name);
    return value;
  }

  /** A truth value. */
  flag(name: string): boolean {
    const value = this.#fields[name];
    if (typeof value !== "boolean") throw this.bad(name);
    return value;
  }

  /** A list, of as many items as `length` says when that is given. */
  list(name: string, length?: number): readonly unknown[] {
    const value = this.#fields[name];
    if (!Array.isArray(value)) throw this.bad(name);
    if (length !== undefined && value.length !== length) throw this.bad(name);
    return value;
  }

  /** A list of numbers, integers from 0 to `last`. */
  counts(name: string, last: number, length?: number): readonly number[] {
    return this.list(name, length).map((value) => {
      if (typeof value !== "number" || !Number.isInteger(value)) throw this.bad(name);
      if (value < 0 || value > last) throw this.bad(name);
      return value;
    });
  }

  /** The error for a field that does not fit. */
  bad(name: string): StackError {
    return new StackError({
      code: "pci/state",
      kind: "input",
      message: `the saved state of ${this.#what} does not fit: ${name}`,
      hint: "start from a state that this version wrote for the same device",
    });
  }
}
