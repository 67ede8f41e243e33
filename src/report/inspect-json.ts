/** What `inspect` found, as JSON: schema `iommukit/inspect@1`, documented in `docs/inspect.md`. */
import { INSPECT_SCHEMA, type InspectResult } from "../host/inspect-result.ts";

/** The one object that `--json` prints. */
export function inspectJson(result: InspectResult): {
  readonly schema: string;
  readonly result: InspectResult;
} {
  const { nodes, iommus, devices, groups, findings } = result;
  return { schema: INSPECT_SCHEMA, result: { nodes, iommus, devices, groups, findings } };
}
