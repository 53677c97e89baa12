//go:build !race

package reader

const scale = 1
