package main

import (
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// defaultBuffer is the smaller of 128 MiB and a quarter of the memory limit, but never less than 4 MiB.
func defaultBuffer(limit int64) int64 {
	const most, least = 128 << 20, 4 << 20
	if limit <= 0 {
		return most
	}
	return max(min(most, limit/4), least)
}

// memoryLimit returns the memory in bytes that this process may use: the lowest limit of its control groups and their
// parents, else that of the machine, or 0 if neither is known. root is "/", or a test's folder.
// Sources: cgroups(7), proc(5); memory.max is version 2, memory.limit_in_bytes version 1.
func memoryLimit(root string) int64 {
	lowest := int64(math.MaxInt64)
	for line := range strings.Lines(readFile(root, "proc/self/cgroup")) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		base, file := "sys/fs/cgroup", "memory.max"
		if fields[1] != "" {
			if fields[1] != "memory" {
				continue
			}
			base, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		// Inside a container the path may be that outside of it: then only the root is there.
		for group := path.Clean("/" + fields[2]); ; group = path.Dir(group) {
			limit, err := strconv.ParseInt(strings.TrimSpace(readFile(root, base+group+"/"+file)), 10, 64)
			if err == nil && limit > 0 {
				lowest = min(lowest, limit)
			}
			if group == "/" {
				break
			}
		}
	}
	for line := range strings.Lines(readFile(root, "proc/meminfo")) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			if kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64); err == nil {
				lowest = min(lowest, kib<<10)
			}
		}
	}
	if lowest == math.MaxInt64 {
		return 0
	}
	return lowest
}

// readFile returns the content of a file, or nothing.
func readFile(root, name string) string {
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return ""
	}
	return string(b)
}
