/** XML as a tree of elements, bounded in size and depth. */
import { SaxesParser } from "saxes";
import { StackError } from "../errors.ts";

const ELEMENTS_MAX = 1 << 18;
const DEPTH_MAX = 64;

/** An element. */
export interface XmlElement {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: XmlElement[];
  text: string;
}

/**
 * Reads XML.
 *
 * @param file - how messages name it
 * @param code - of the error, with what it should have been
 * @throws StackError with its position
 */
export function parseXml(
  text: string,
  file: string,
  { code, what, hint }: { readonly code: `${string}/${string}`; what: string; hint: string },
): XmlElement {
  const parser = new SaxesParser({ position: true });
  const root: XmlElement = { name: "", attributes: {}, children: [], text: "" };
  const open = [root];
  let count = 0;
  const damaged = (message: string) => {
    const at = { file, line: parser.line, column: parser.column };
    return new StackError({ code, kind: "input", message: `${what}: ${message}`, at, hint });
  };
  parser.on("error", (error) => {
    throw damaged(error.message.replace(/^\d+:\d+: /, ""));
  });
  parser.on("opentag", ({ name, attributes }) => {
    count += 1;
    if (count > ELEMENTS_MAX || open.length > DEPTH_MAX) throw damaged("it holds too much");
    const element = { name, attributes, children: [], text: "" } as XmlElement;
    open.at(-1)!.children.push(element);
    open.push(element);
  });
  parser.on("text", (piece) => {
    open.at(-1)!.text += piece;
  });
  parser.on("closetag", () => {
    open.pop();
  });
  parser.write(text).close();
  const [top] = root.children;
  if (top === undefined) throw damaged("no element stands in it");
  return top;
}

/** The first child on a path of names; undefined where there is none. */
export function childAt(element: XmlElement, ...path: readonly string[]): XmlElement | undefined {
  let at: XmlElement | undefined = element;
  for (const name of path) at = at?.children.find((one) => one.name === name);
  return at;
}

/** All children of a name below a path. */
export function childrenAt(
  element: XmlElement,
  name: string,
  ...path: readonly string[]
): XmlElement[] {
  return childAt(element, ...path)?.children.filter((one) => one.name === name) ?? [];
}
