//go:build race

package reader

// scale divides the sizes of tests that are slow under the race detector.
const scale = 8
