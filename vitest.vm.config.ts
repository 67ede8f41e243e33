import { defineConfig } from "vitest/config";

/** Tests that boot a real guest: minutes, and only where scripts/vm/fetch.mjs has been run. */
export default defineConfig({
  test: { include: ["test/vm/**/*.vm.ts"], testTimeout: 600_000, fileParallelism: false },
});
