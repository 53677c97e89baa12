package topology

import (
	"context"
	"errors"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

const loadingPoll = time.Second

// awaitLoaded returns when the server has read its data from disk. PING is refused while LOADING by every server from
// Redis 2.8 to Valkey 9.1 (protocol.md 8), so one round trip is enough for a server that is up.
func (t *trier) awaitLoaded(ctx context.Context, c *resp.Conn) error {
	told := false
	var last time.Duration
	for {
		loading, eta, err := t.askLoading(ctx, c)
		if err != nil {
			return err
		}
		if !loading {
			if told { // Prepare follows
				t.clock.run()
				t.event(Event{State: Authenticating})
			}
			return nil
		}
		if !told || eta != last {
			t.clock.stop()
			t.event(Event{State: Loading, LoadingETA: eta})
			told, last = true, eta
		}
		timer := time.NewTimer(loadingPoll)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return &Error{t.addr, "LOADING", context.Cause(ctx)}
		}
	}
}

func (t *trier) askLoading(ctx context.Context, c *resp.Conn) (loading bool, eta time.Duration, err error) {
	_, err = c.Do(ctx, loginTimeout, "PING")
	if err == nil {
		return false, 0, nil
	}
	var e *resp.Error
	if !errors.As(err, &e) {
		return false, 0, failed(t.addr, "PING", err)
	}
	switch e.Code {
	case "LOADING", "NOPERM":
	case "MISCONF", "BUSY", "MASTERDOWN": // the server lives; what it refuses is for the connection's user to wait for
		return false, 0, nil
	default:
		return false, 0, failed(t.addr, "PING", err)
	}
	r, infoErr := c.Do(ctx, loginTimeout, "INFO", "persistence")
	switch {
	case infoErr == nil && e.Code == "NOPERM": // a user without PING
		n := ParseInfo(r.Text)
		return n.Loading, n.LoadingETA, nil
	case infoErr == nil:
		return true, ParseInfo(r.Text).LoadingETA, nil
	case !errors.As(infoErr, new(*resp.Error)):
		return false, 0, failed(t.addr, "INFO", infoErr)
	case e.Code == "LOADING": // a user without INFO
		return true, 0, nil
	}
	return false, 0, failed(t.addr, "PING", err)
}
