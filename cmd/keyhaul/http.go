package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keyhaul/keyhaul/haul"
)

// webServer is the HTTP side of a run; the zero value is none.
type webServer struct {
	server *http.Server
	done   chan struct{}
}

func (w webServer) stop() {
	if w.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = w.server.Shutdown(ctx)
	<-w.done
}

// serveHTTP answers from the first moment on, whatever source and target do.
func (a *app) serveHTTP(ctx context.Context) (webServer, error) {
	if a.cfg.HTTP == "" {
		return webServer{}, nil
	}
	token, err := a.state.makeToken()
	if err != nil {
		return webServer{}, err
	}
	return a.serve(ctx, a.monitor.handler(token))
}

// serve has a handler answer at --http.
func (a *app) serve(ctx context.Context, handler http.Handler) (webServer, error) {
	if a.cfg.HTTP == "" {
		return webServer{}, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", a.cfg.HTTP)
	if errors.Is(err, syscall.EADDRINUSE) && !a.cfg.HTTPExplicit {
		host, _, _ := net.SplitHostPort(a.cfg.HTTP)
		l, err = lc.Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
		if err == nil {
			a.log.Warn().Str("wanted", a.cfg.HTTP).Str("http", l.Addr().String()).Msg("the usual HTTP port is taken; using a free one")
		}
	}
	if err != nil {
		return webServer{}, haul.Errorf(haul.ExitUsage, "choose another --http address, or an empty one for none", "HTTP: %w", err)
	}
	if err := a.state.saveHTTPAddr(l.Addr().String()); err != nil {
		_ = l.Close()
		return webServer{}, err
	}
	w := webServer{
		server: &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second},
		done:   make(chan struct{}),
	}
	go func() {
		defer close(w.done)
		if err := w.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error().Err(err).Msg("HTTP has stopped")
		}
	}()
	a.log.Info().Str("http", "http://"+l.Addr().String()).Msg("status and metrics")
	return w, nil
}

// handler answers requests. Without a token none that changes anything is carried out.
func (m *monitor) handler(token string) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics{m}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(m.status())
	})
	mux.HandleFunc("POST "+repairPath, m.serveRepair(token))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		r := m.status()
		if r.Ready {
			_, _ = fmt.Fprintln(w, "ready")
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintf(w, "not ready: %s, lag %.1f s%s\n", r.Phase, r.overall().LagSeconds, waiting(r))
	})
	return mux
}
