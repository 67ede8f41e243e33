/** Reads topology files into machines; every complaint has its line and column. */
import { StackError } from "../errors.ts";
import type { Machine } from "../topology/machine.ts";
import { machineProblems } from "../topology/validate.ts";
import { buildMachine } from "./machine-build.ts";
import { machineSchema } from "./machine-schema.ts";
import { validate } from "./validate.ts";
import { parseYaml, type YamlSource } from "./yaml-source.ts";

/**
 * Reads a topology file.
 *
 * @param file - how messages name it
 * @throws StackError with line and column: no YAML, not of the form, or an impossible machine
 */
export function machineFromYaml(text: string, file: string): Machine {
  return machineFromSource(parseYaml(text, file));
}

/** Makes a parsed document into a machine. @throws StackError as {@link machineFromYaml} */
export function machineFromSource(source: YamlSource): Machine {
  const document = validate(source, machineSchema);
  const built = buildMachine(document);
  const problems = [...built.problems, ...machineProblems(built.machine)];
  const [first] = problems;
  if (first === undefined) return built.machine;
  const more = problems.length - 1;
  throw new StackError({
    code: "config/impossible-machine",
    kind: "input",
    message:
      first.message +
      (more === 0 ? "" : ` (and ${more} more ${more === 1 ? "problem" : "problems"})`),
    at: source.positionOf(first.path),
    hint: "such a machine cannot exist; docs/inspect.md describes the form",
  });
}
