package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/keyhaul/keyhaul/haul"
)

// status is what this demo needs of keyhaul's status.
type status struct {
	Phase  string            `json:"phase"`
	Links  []haul.LinkStatus `json:"links"`
	Target haul.WriterStatus `json:"target"`
}

// process is a running keyhaul.
type process struct {
	d     *demo
	cmd   *exec.Cmd
	lines sync.WaitGroup
	http  chan string // receives the address of its status once, or is closed
	addr  string
	ended bool
}

// start runs a keyhaul command and shows what it says.
func (d *demo) start(command string, flags ...string) *process {
	target := "redis://" + strings.Join(d.target.Seeds(), ",")
	shown := []string{"--source", "redis://" + d.link.Addr(), "--target", target}
	shown = append(shown, flags...)
	d.say("$ keyhaul %s %s", command, strings.Join(shown, " "))
	args := append([]string{command, "--state-dir", d.state, "--name", "demo", "--http", "127.0.0.1:0", "--log-format", "json"}, shown...)
	p := &process{d: d, cmd: exec.CommandContext(d.ctx, d.program, args...), http: make(chan string, 1)}
	p.cmd.Stdout = os.Stdout
	out, err := p.cmd.StderrPipe()
	d.check(err, "keyhaul")
	d.check(p.cmd.Start(), "keyhaul")
	p.lines.Go(func() { p.show(out) })
	d.tb.Cleanup(func() {
		if !p.ended {
			_ = p.cmd.Process.Kill()
			p.wait()
		}
	})
	return p
}

// show prints what keyhaul says, in a short form, and catches the address of its status.
func (p *process) show(out io.Reader) {
	defer close(p.http)
	found := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		text := lines.Text()
		var fields map[string]any
		if json.Unmarshal([]byte(text), &fields) == nil {
			if addr, ok := fields["http"].(string); ok && !found {
				found = true
				p.http <- addr
			}
			text = short(fields)
		}
		fmt.Printf("           keyhaul | %s\n", text)
	}
}

// short is a log line without its time, and without the level where that is info.
func short(fields map[string]any) string {
	var b strings.Builder
	if level, _ := fields["level"].(string); level != "info" {
		b.WriteString(level + ": ")
	}
	fmt.Fprint(&b, fields["message"])
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		switch v := fields[name].(type) {
		case float64:
			fmt.Fprintf(&b, " %s=%.10g", name, v)
		default:
			if name != "time" && name != "level" && name != "message" {
				fmt.Fprintf(&b, " %s=%v", name, v)
			}
		}
	}
	return b.String()
}

func (p *process) signal(s syscall.Signal) { p.d.check(p.cmd.Process.Signal(s), "signal to keyhaul") }

// wait returns the exit code, -1 for the end by a signal.
func (p *process) wait() int {
	p.lines.Wait()
	err := p.cmd.Wait()
	p.ended = true
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		p.d.check(err, "keyhaul")
	}
	return p.cmd.ProcessState.ExitCode()
}

// status asks keyhaul how it is.
func (p *process) status() status {
	if p.addr == "" {
		p.addr = <-p.http
	}
	if p.addr == "" {
		p.d.tb.Fatalf("keyhaul has ended, or serves no status")
	}
	req, err := http.NewRequestWithContext(p.d.ctx, http.MethodGet, p.addr+"/api/v1/status", nil)
	p.d.check(err, "status")
	r, err := http.DefaultClient.Do(req)
	p.d.check(err, "status")
	defer r.Body.Close()
	var s status
	p.d.check(json.NewDecoder(r.Body).Decode(&s), "status")
	return s
}
