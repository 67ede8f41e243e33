/** Holds a parsed document against a schema, and turns what does not fit into one message. */

import type { z } from "zod";
import type { $ZodIssue } from "zod/v4/core";
import { type Position, StackError } from "../errors.ts";
import type { ValuePath, YamlSource } from "./yaml-source.ts";

/**
 * The value that a schema makes of a document.
 *
 * @param hint - where the form is described
 * @throws StackError `config/invalid` or `config/unknown-key` for the first place that does not fit
 */
export function validate<T extends z.ZodType>(
  source: YamlSource,
  schema: T,
  hint = "docs/inspect.md describes the form",
): z.output<T> {
  const parsed = schema.safeParse(source.value);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.flatMap(leafIssues);
  const placed = issues.map((issue) => ({ issue, at: positionOf(source, issue) }));
  placed.sort((a, b) => a.at.line! - b.at.line! || a.at.column! - b.at.column!);
  const { issue, at } = placed[0]!;
  const more = placed.length - 1;
  const others = more === 0 ? "" : ` (and ${more} more ${more === 1 ? "problem" : "problems"})`;
  throw new StackError({
    code: issue.code === "unrecognized_keys" ? "config/unknown-key" : "config/invalid",
    kind: "input",
    message: `${messageOf(issue)}${others}`,
    at,
    hint: hintOf(issue, schema) ?? hint,
  });
}

/** Of a choice, the branch that fits best is the one to complain about. */
function leafIssues(issue: $ZodIssue): $ZodIssue[] {
  if (issue.code !== "invalid_union" || issue.errors.length === 0) return [issue];
  const deep = issue.errors
    .map((list) => list.map((one) => ({ ...one, path: [...issue.path, ...one.path] }) as $ZodIssue))
    .filter((list) => list.some((one) => one.path.length > issue.path.length));
  return deep.length === 0 ? [issue] : deep[0]!.flatMap(leafIssues);
}

function positionOf(source: YamlSource, issue: $ZodIssue): Position {
  const path = issue.path as ValuePath;
  if (issue.code === "unrecognized_keys") return source.positionOfKey([...path, issue.keys[0]!]);
  return source.positionOf(path);
}

function nameOf(path: readonly PropertyKey[]): string {
  return path
    .map((part, at) =>
      typeof part === "number" ? `[${part}]` : at === 0 ? part : `.${String(part)}`,
    )
    .map(String)
    .join("");
}

function messageOf(issue: $ZodIssue): string {
  const name = nameOf(issue.path);
  if (issue.code === "unrecognized_keys") {
    return `there is no key "${issue.keys[0]}"${name === "" ? "" : ` in ${name}`}`;
  }
  return name === "" ? issue.message : `${name}: ${issue.message}`;
}

/** The keys that exist where there is none of the name. */
function hintOf(issue: $ZodIssue, schema: z.ZodType): string | null {
  if (issue.code === "unrecognized_keys") {
    const keys = keysAt(schema, issue.path);
    if (keys.length > 0) return `the keys here are ${keys.join(", ")}`;
  }
  return null;
}

interface Definition {
  readonly shape?: Record<string, z.ZodType>;
  readonly element?: z.ZodType;
  readonly innerType?: z.ZodType;
  readonly in?: z.ZodType;
  readonly options?: readonly z.ZodType[];
}

function keysAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let shapes: z.ZodType[] = [schema];
  for (const part of path) {
    shapes = shapes.flatMap(unwrap).flatMap((one) => {
      const { shape, element } = definitionOf(one);
      const next = typeof part === "number" ? element : shape?.[String(part)];
      return next === undefined ? [] : [next];
    });
  }
  const keys = shapes.flatMap(unwrap).flatMap((one) => Object.keys(definitionOf(one).shape ?? {}));
  return [...new Set(keys)];
}

function definitionOf(schema: z.ZodType): Definition {
  return schema.def as Definition;
}

/** Through what stands around an object: optional, default, transform, choice. */
function unwrap(schema: z.ZodType): z.ZodType[] {
  const definition = definitionOf(schema);
  const inner = definition.innerType ?? definition.in;
  if (inner !== undefined) return unwrap(inner);
  return definition.options === undefined ? [schema] : definition.options.flatMap(unwrap);
}
