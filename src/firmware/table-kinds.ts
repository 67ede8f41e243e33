/**
 * The registry of descriptions of hardware: which can be read, and which can be written. A new kind
 * is a row in one list or both; `iommukit tables` knows no kind by itself.
 */
import { StackError } from "../errors.ts";
import { acpiFamily, acpiKinds } from "./acpi/kinds.ts";
import { builtinFamily, builtinKinds } from "./builtin/kinds.ts";
import { commandLineFamily, commandLineKinds } from "./command-line/kinds.ts";
import { devicetreeFamily, devicetreeKinds } from "./devicetree/kinds.ts";
import type { DescriptionFamily, DescriptionFile, DescriptionKind } from "./table-description.ts";

/** All that can be read; the first that recognises a file reads it. */
export const families: readonly DescriptionFamily[] = [
  acpiFamily,
  devicetreeFamily,
  commandLineFamily,
  builtinFamily,
];

/** All that can be written. */
export const descriptionKinds: readonly DescriptionKind[] = [
  ...acpiKinds,
  ...devicetreeKinds,
  ...builtinKinds,
  ...commandLineKinds,
];

/** The family of a file. @throws StackError `firmware/unknown` */
export function familyOf({ file, bytes }: DescriptionFile): DescriptionFamily {
  const family = families.find((one) => one.recognises(bytes));
  if (family !== undefined) return family;
  throw new StackError({
    code: "firmware/unknown",
    kind: "input",
    message: `This is none of: ${families.map((one) => one.brief).join(", ")}`,
    at: { file, offset: 0 },
    hint: "tables of a running system are in /sys/firmware/acpi/tables",
  });
}
