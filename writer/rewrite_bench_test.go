package writer

import (
	"testing"

	"github.com/rs/zerolog"
)

// BenchmarkRewrite is what looking for commands to rewrite costs each of them, and what a rewritten one costs.
func BenchmarkRewrite(b *testing.B) {
	for name, tt := range map[string]struct{ target, command string }{
		"no rule":   {"redis 8.0", "HSET h f v"},
		"passes":    {"redis 8.0", "SET k v PXAT 1700000010000"},
		"rewritten": {"redis 8.0", "EXPIRE k 10"},
	} {
		b.Run(name, func(b *testing.B) {
			batch := newRewriteBatch(b)
			for range 500 {
				batch.words(tt.command)
			}
			r := newDispatcher(Config{Node: nodeOf(b, tt.target), Log: zerolog.Nop()}).rewriter
			commands, entries, args, buf := batch.b.Commands, batch.b.Entries, batch.b.Args, batch.b.Buf
			b.ReportAllocs()
			for b.Loop() {
				work := *batch
				work.b.Commands = append(work.b.Commands[:0:0], commands...)
				work.b.Entries, work.b.Args, work.b.Buf = entries, args, buf
				if err := r.apply(work.b); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*500), "ns/command")
		})
	}
}
