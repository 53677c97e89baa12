package redistest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/internal/resp"
)

const (
	smallKeys  = 100_000  // of each type
	smallFlush = 64 << 10 // bytes in a write
)

// appendSmallWrite appends the i-th of the small writes to dst and returns its key. All of them name one key.
func appendSmallWrite(dst []byte, i int) ([]byte, string) {
	// Fibonacci hashing spreads the keys without a generator's state
	n := strconv.FormatUint(uint64(i)*0x9e3779b97f4a7c15>>32%smallKeys, 10)
	number := strconv.Itoa(i)
	switch i % 6 {
	case 0:
		return resp.AppendCommand(dst, "SET", "small:string:"+n, "value:"+number), "small:string:" + n
	case 1:
		return resp.AppendCommand(dst, "INCR", "small:count:"+n), "small:count:" + n
	case 2:
		return resp.AppendCommand(dst, "HSET", "small:hash:"+n, "f"+strconv.Itoa(i/6%8), number), "small:hash:" + n
	case 3:
		return resp.AppendCommand(dst, "RPUSH", "small:list:"+n, number), "small:list:" + n
	case 4:
		return resp.AppendCommand(dst, "ZADD", "small:zset:"+n, number, "m"+strconv.Itoa(i/6%16)), "small:zset:" + n
	}
	return resp.AppendCommand(dst, "SADD", "small:set:"+n, number), "small:set:" + n
}

// appendHalfWrite appends the i-th of small writes over 200,000 keys, of which every second must not be repeated.
func appendHalfWrite(dst []byte, i int) ([]byte, string) {
	n := strconv.FormatUint(uint64(i)*0x9e3779b97f4a7c15>>32%(smallKeys/2), 10)
	switch number := strconv.Itoa(i); i % 4 {
	case 0:
		return resp.AppendCommand(dst, "SET", "half:string:"+n, "value:"+number), "half:string:" + n
	case 1:
		return resp.AppendCommand(dst, "INCR", "half:count:"+n), "half:count:" + n
	case 2:
		return resp.AppendCommand(dst, "HSET", "half:hash:"+n, "f"+strconv.Itoa(i/4%8), number), "half:hash:" + n
	default:
		return resp.AppendCommand(dst, "RPUSH", "half:list:"+n, number), "half:list:" + n
	}
}

// SmallWriteBytes returns the first n small writes as the bytes of their requests.
func SmallWriteBytes(n int) []byte {
	out := make([]byte, 0, 64*n)
	for i := range n {
		out, _ = appendSmallWrite(out, i)
	}
	return out
}

// SmallWrites sends n small writes (SET, INCR, HSET, RPUSH, ZADD and SADD of single keys) to a server or cluster,
// pipelined as fast as it takes them, and waits for all replies. An error reply ends it.
func SmallWrites(ctx context.Context, ep Endpoint, n int) error {
	return smallWrites(ctx, ep, n, appendSmallWrite)
}

// HalfWrites is like SmallWrites with SET, INCR, HSET and RPUSH over 200,000 keys: half of them must not be repeated.
func HalfWrites(ctx context.Context, ep Endpoint, n int) error {
	return smallWrites(ctx, ep, n, appendHalfWrite)
}

func smallWrites(ctx context.Context, ep Endpoint, n int, next func([]byte, int) ([]byte, string)) error {
	to, err := newSide(ctx, "load", ep)
	if err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	blasts := make(map[string]*blast)
	for _, node := range to.nodes {
		p, err := ep.pipe(ctx, node)
		if err != nil {
			return err
		}
		b := &blast{pipe: p, sent: make(chan int, 1024)}
		defer p.close()
		unhook := context.AfterFunc(gctx, func() { _ = p.conn.SetDeadline(time.Unix(1, 0)) })
		defer unhook()
		blasts[node] = b
		group.Go(b.count)
	}
	group.Go(func() error {
		defer func() {
			for _, b := range blasts {
				close(b.sent)
			}
		}()
		b := blasts[to.nodes[0]]
		for i := range n {
			if to.table == nil {
				b.out, _ = next(b.out, i)
			} else {
				request, key := next(nil, i)
				b = blasts[to.table[Slot(key)]]
				b.out = append(b.out, request...)
			}
			b.pending++
			if len(b.out) >= smallFlush {
				if err := b.flush(gctx); err != nil {
					return err
				}
			}
		}
		for _, b := range blasts {
			if err := b.flush(gctx); err != nil {
				return err
			}
		}
		return nil
	})
	err = group.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// blast is a connection on which one goroutine writes (out and pending of the pipe) while another one reads.
type blast struct {
	*pipe
	sent chan int // how many requests each write held
}

func (b *blast) flush(ctx context.Context) error {
	if b.pending == 0 {
		return nil
	}
	if _, err := b.conn.Write(b.out); err != nil {
		return fmt.Errorf("redistest: %s: %w", b.addr, err)
	}
	select {
	case b.sent <- b.pending:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	b.out, b.pending = b.out[:0], 0
	return nil
}

// count reads as many replies as requests were sent. Simple replies are recognised without decoding them.
func (b *blast) count() error {
	for n := range b.sent {
		for n > 0 {
			size, err := resp.Scan(b.in[b.start:])
			if errors.Is(err, resp.ErrShort) {
				if err := b.fill(); err != nil {
					if errors.Is(err, io.EOF) {
						err = io.ErrUnexpectedEOF
					}
					return fmt.Errorf("redistest: %s: %w", b.addr, err)
				}
				continue
			}
			if err != nil {
				return fmt.Errorf("redistest: %s: %w", b.addr, err)
			}
			if reply := b.in[b.start : b.start+size]; reply[0] == resp.KindError {
				return fmt.Errorf("redistest: %s: small write refused: %s", b.addr, quote(string(reply[1:])))
			}
			b.start += size
			n--
		}
	}
	return nil
}
