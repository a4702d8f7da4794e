package sms_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	standin "leadpipe/internal/sandbox/twilio"
	"leadpipe/internal/sms"
	"leadpipe/internal/state"
	"leadpipe/internal/twilio"
)

// The environment of a test binary that is to be a worker.
const (
	envNATS     = "SMS_TEST_NATS" // its presence makes the worker
	envTwilio   = "SMS_TEST_TWILIO"
	envParallel = "SMS_TEST_PARALLEL"
	envCallTime = "SMS_TEST_CALL_TIME"
	envKillAt   = "SMS_TEST_KILL_AT" // a point at which the worker kills itself, once
)

func TestMain(m *testing.M) {
	if url := os.Getenv(envNATS); url != "" {
		if err := work(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// stress says whether tests run in their full size.
func stress() bool { return os.Getenv("STRESS") != "" }

// work is the sms consumer as a program of its own, until SIGTERM, or worse.
func work(url string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	js, err := bus.Connect(url, "", "consumers", log, nil, nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		return err
	}
	defer js.Conn().Close()
	store := state.New(js, nil)
	limit, err := time.ParseDuration(os.Getenv(envCallTime))
	if err != nil {
		return err
	}
	client, err := twilio.New(twilio.Options{Account: account, Token: token, BaseURL: os.Getenv(envTwilio), Timeout: limit, Conns: 64})
	if err != nil {
		return err
	}
	defer client.Close()
	o := sms.Options{Store: store, Look: store.Last, Twilio: client, From: from, Lease: 3 * limit, Log: log}
	if _, err := fmt.Sscan(os.Getenv(envParallel), &o.Parallel); err != nil {
		return err
	}
	if at := os.Getenv(envKillAt); at != "" {
		sms.WithPoint(&o, func(point string) {
			if point == at {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // no further, however long the signal takes
			}
		})
	}
	sender, err := sms.New(o)
	if err != nil {
		return err
	}
	loop, err := bus.NewLoop(js, bus.Options{
		Stream: contracts.StreamCRM, Durable: contracts.SMSSender, Handle: sender.Handle, Max: 512, Store: store,
		Log: log, Metrics: bus.NewMetrics(nil),
	})
	if err != nil {
		return err
	}
	return loop.Run(ctx)
}

// A worker is a process that runs the sms consumer.
type worker struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// spawn starts a worker; what it logs is checked at the end of the test.
func (r *rig) spawn(env ...string) *worker {
	r.tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		r.tb.Fatal(err)
	}
	r.logs.logger() // has the log checked
	w := &worker{cmd: exec.Command(exe), done: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), append([]string{
		envNATS + "=" + r.nats.URL("consumers"), envTwilio + "=" + r.http.URL, envParallel + "=16", envCallTime + "=" + callTime.String(),
	}, env...)...)
	w.cmd.Stderr = r.logs
	if err := w.cmd.Start(); err != nil {
		r.tb.Fatal(err)
	}
	go func() {
		defer close(w.done)
		_ = w.cmd.Wait() // how it ended is the test's doing
	}()
	r.tb.Cleanup(func() { w.kill(); <-w.done })
	return w
}

// kill ends a worker as a power cut would.
func (w *worker) kill() { _ = w.cmd.Process.Kill() }

// quickRedelivery has the server give a dead worker's messages to others after a second
// in place of half a minute.
func (r *rig) quickRedelivery() {
	r.tb.Helper()
	ctx := context.Background()
	js := r.nats.JetStream("operator")
	c, err := js.Consumer(ctx, contracts.StreamCRM, contracts.SMSSender)
	if err != nil {
		r.tb.Fatal(err)
	}
	config := c.CachedInfo().Config
	config.AckWait = time.Second
	if _, err := js.UpdateConsumer(ctx, contracts.StreamCRM, config); err != nil {
		r.tb.Fatal(err)
	}
}

// exactlyOne checks that each number got exactly one text.
func (r *rig) exactlyOne(first, last int) {
	r.tb.Helper()
	got := r.sendsPer()
	for n := first; n < last; n++ {
		if got[number(n)] != 1 {
			r.tb.Errorf("number %d got %d texts", n, got[number(n)])
		}
	}
	if len(got) != last-first {
		r.tb.Errorf("%d numbers got texts, not %d", len(got), last-first)
	}
}

// Three processes are killed at random moments and started again, while Twilio is slow
// and hangs up after accepting in one call of twenty.
func TestCrashesTextOnce(t *testing.T) {
	t.Parallel()
	texts, kills := 60, 6
	if stress() {
		texts, kills = 500, 24
	}
	r := newRig(t, func(o *standin.Options) {
		o.MinLatency, o.MaxLatency = 100*time.Millisecond, 300*time.Millisecond
		o.FaultRate, o.Faults = 0.05, []standin.Fault{standin.HangUpAfter}
	})
	r.quickRedelivery()
	workers := make([]*worker, 3)
	for i := range workers {
		workers[i] = r.spawn(envParallel + "=8")
	}
	begin := time.Now()
	killed := 0
	for queued := 0; queued < texts || killed < kills; {
		if n := min(texts-queued, texts/kills+1); n > 0 {
			r.queue(span(queued, queued+n)...)
			queued += n
		}
		time.Sleep(100*time.Millisecond + rand.N(300*time.Millisecond)) // random moments are the point
		i := rand.N(len(workers))
		workers[i].kill()
		<-workers[i].done
		killed++
		workers[i] = r.spawn(envParallel + "=8")
	}
	r.statuses(time.Minute, 0, texts, contracts.SMSSent, contracts.SMSDelivered)
	r.exactlyOne(0, texts)
	r.valid()
	t.Logf("%d texts, %d kills, %d calls, %d searches, %s", texts, killed, len(r.twilio.Calls()), r.twilio.Count(standin.List), time.Since(begin).Round(time.Millisecond))
}

// Each step of the walk is killed once, for certain.
func TestCrashAtEachStep(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		step     string
		killAt   string
		attempts int // that the record counts in the end
	}{
		{"before the claim", sms.Due, 1},
		{"after the claim", sms.Claimed, 2}, // nobody can know that the first made no call
		{"after the call", "called", 1},
		{"before the result's commit", sms.Answered, 1},
	} {
		t.Run(strings.ReplaceAll(c.step, " ", "_"), func(t *testing.T) {
			t.Parallel()
			var victim atomic.Pointer[worker]
			var once sync.Once
			r := newRig(t, func(o *standin.Options) {
				o.Fault = func(call standin.Call) (f standin.Fault) {
					if c.killAt == "called" && call.Op == standin.Send {
						once.Do(func() {
							victim.Load().kill()
							f = standin.HangUpAfter
						})
					}
					return f
				}
			})
			r.quickRedelivery()
			victim.Store(r.spawn(envKillAt + "=" + c.killAt))
			r.queue(0)
			select {
			case <-victim.Load().done:
			case <-time.After(20 * time.Second):
				t.Fatal("the worker lives on")
			}
			// The stand-in enters a call when it has carried it out, perhaps after its caller died.
			want := map[string]int{"called": 1, sms.Answered: 1}[c.killAt]
			eventually(t, 30*time.Second, "the calls before the crash", func() bool { return len(r.twilio.Calls()) == want })
			r.spawn()
			r.statuses(30*time.Second, 0, 1, contracts.SMSSent, contracts.SMSDelivered)
			r.exactlyOne(0, 1)
			if n := len(r.twilio.Calls()); n != 1 {
				t.Errorf("%d calls", n)
			}
			if got := r.text(0); got.SID == "" || got.Attempts != c.attempts {
				t.Errorf("the record has SID %q and %d attempts", got.SID, got.Attempts)
			}
		})
	}
}

// A worker that is told to stop finishes the calls in hand.
func TestDrainFinishesWhatBegan(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *standin.Options) { o.MinLatency, o.MaxLatency = 300*time.Millisecond, 300*time.Millisecond })
	w := r.spawn(envCallTime + "=5s")
	r.queue(span(0, 8)...)
	eventually(t, 20*time.Second, "a call begins", func() bool { return len(r.twilio.Calls()) > 0 })
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-w.done
	if code := w.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	got := r.sendsPer()
	for n := range 8 {
		want := contracts.SMSQueued
		if got[number(n)] > 0 {
			want = contracts.SMSSent
		}
		if text := r.text(n); text.Status != want {
			t.Errorf("text %d is left %s, not %s", n, text.Status, want)
		}
	}
}
