/** The stack without translation: a device's addresses are physical, and nothing ever waits. */
import { DomainType, IommuDomain } from "../../iommu/domain.ts";
import type { PolicyStack } from "./policy-stack.ts";

/** DMA through an identity domain. Source: kernel/dma/mapping.c, dma_map_direct. */
export class PassthroughStack implements PolicyStack {
  readonly dueNs = Number.POSITIVE_INFINITY;
  readonly hasReach = false;
  readonly #domain = new IommuDomain(DomainType.IDENTITY, null);

  map(physPfn: number): number {
    return this.#domain.iovaToPhys(physPfn);
  }

  begin(): number {
    return 0;
  }

  link(): boolean {
    return true;
  }

  commit(): boolean {
    return true;
  }

  unmap(): void {}

  unlink(): void {}

  release(): void {}

  advance(): void {}

  mapCommands(): number {
    return 0;
  }

  unmapCommands(): number {
    return 0;
  }

  below4GiBPeakPages(): number {
    return 0;
  }

  flushCounts(): null {
    return null;
  }

  invalidationCounts(): null {
    return null;
  }

  tableCounts(): null {
    return null;
  }
}
