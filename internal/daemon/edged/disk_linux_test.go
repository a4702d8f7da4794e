package edged_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/alerttest"
	"leadpipe/internal/natstest"
)

// diskSize is the size of the disk that is filled, in MB; its reserve is 4 MiB.
const diskSize = 64

// TestFullDisk fills a disk of its own under a running edge, in a process that may mount one.
func TestFullDisk(t *testing.T) {
	if dir := os.Getenv("FULL_DISK"); dir != "" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", diskSize)); err != nil {
			t.Fatal(err)
		}
		t.Run("nearly", func(t *testing.T) { nearlyFull(t, filepath.Join(dir, "1")) })
		t.Run("wholly", func(t *testing.T) { whollyFull(t, filepath.Join(dir, "2")) })
		t.Run("start", func(t *testing.T) { startOnFull(t, filepath.Join(dir, "3")) })
		return
	}
	t.Parallel()
	scrapes := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), "FULL_DISK="+t.TempDir(), "SCRAPES="+scrapes)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		t.Skipf("this machine lets nobody mount a disk for a test (user namespaces: %v); TestReserve shows when webhooks are refused", err)
	}
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	scraped := func(name string) alerttest.Scrape {
		text, err := os.ReadFile(filepath.Join(scrapes, name))
		if err != nil {
			t.Fatal(err)
		}
		return alerttest.Scrape{Job: "edge", Text: string(text)}
	}
	for after, alert := range map[string]string{"nearly": "DiskNearlyFull", "again": "StoreWasAtFault"} {
		var l alerttest.Timeline
		l.Hold(5*time.Minute, scraped("well"))
		if a := alerttest.Ask(t, l, nil); len(a.Firing) > 0 {
			t.Errorf("all is well, and %v fire", a.Firing)
		}
		l.Hold(3*time.Minute, scraped(after))
		if a := alerttest.Ask(t, l, nil); !a.Fires(alert) {
			t.Errorf("%s does not fire; %v do", alert, a.Firing)
		}
	}
}

// scrape keeps what the edge serves, for the alerts.
func (r *diskRig) scrape(name string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(os.Getenv("SCRAPES"), name), []byte(alerttest.Get(r.t, "edge", r.url).Text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// diskRig is an edge whose store is on the small disk.
type diskRig struct {
	t    *testing.T
	dir  string
	url  string
	js   jetstream.JetStream // the operator's
	seen sync.Map            // ids that were answered 200
}

func newDiskRig(t *testing.T, dir string) *diskRig {
	t.Helper()
	cfg := config(t)
	port := natstest.Port(t)
	text, err := os.ReadFile(cfg.Conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Conf, []byte(strings.Replace(string(text), "port: -1", fmt.Sprint("port: ", port), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.StoreDir = filepath.Join(dir, "store")
	r := &diskRig{t: t, dir: dir}
	url, stop := running(t, cfg)
	r.url = url
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("the edge ended: %v", err)
		}
	})
	nc, err := nats.Connect(fmt.Sprintf("nats://operator:operator@127.0.0.1:%d", port), nats.CustomInboxPrefix("_INBOX.operator"),
		nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if r.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	return r
}

// send posts a webhook and notes one that is answered 200.
func (r *diskRig) send(id string) int {
	status := post(r.t, r.url, id)
	if status == http.StatusOK {
		r.seen.Store("stripe:"+id, true)
	}
	return status
}

// await sends webhooks until one is answered as wanted.
func (r *diskRig) await(name string, want int) {
	r.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for i := 0; ; i++ {
		status := r.send(fmt.Sprintf("evt_%s_%d", name, i))
		if status == want {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: still answered %d after a minute, not %d", name, status, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// fill writes a file until so many bytes of the disk are free.
func (r *diskRig) fill(left uint64) (file string) {
	r.t.Helper()
	file = filepath.Join(filepath.Dir(r.dir), "filler")
	f, err := os.Create(file)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for chunk := make([]byte, 64<<10); ; {
		var st syscall.Statfs_t
		if err := syscall.Statfs(file, &st); err != nil {
			r.t.Fatal(err)
		}
		if st.Bavail*uint64(st.Bsize) <= left {
			return file
		}
		if _, err := f.Write(chunk); errors.Is(err, syscall.ENOSPC) {
			return file
		} else if err != nil {
			r.t.Fatal(err)
		}
	}
}

// whole checks that each webhook that was answered 200 is stored, once.
func (r *diskRig) whole() {
	r.t.Helper()
	times := map[string]int{}
	stream, err := r.js.Stream(r.t.Context(), contracts.StreamWebhooks)
	if err != nil {
		r.t.Fatal(err)
	}
	state := stream.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq; seq++ {
		m, err := stream.GetMsg(r.t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			r.t.Fatal(err)
		}
		times[m.Header.Get(jetstream.MsgIDHeader)]++
	}
	answered := 0
	r.seen.Range(func(id, _ any) bool {
		if answered++; times[id.(string)] != 1 {
			r.t.Errorf("%s was answered 200 and is stored %d times", id, times[id.(string)])
		}
		return true
	})
	for id, n := range times {
		if n > 1 {
			r.t.Errorf("%s is stored %d times", id, n)
		}
	}
	r.t.Logf("%d webhooks answered 200, each stored once", answered)
}

func (r *diskRig) readyz() (status int, says, retryAfter string) {
	r.t.Helper()
	res, err := http.Get(r.url + "/readyz")
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(body), res.Header.Get("Retry-After")
}

func (r *diskRig) awaitReadyz(want int) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		status, says, _ := r.readyz()
		if status == want {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("/readyz answers %d (%s), not %d", status, says, want)
		}
	}
}

// Below the reserve webhooks are refused, and the server goes on: the state can be written.
func nearlyFull(t *testing.T, dir string) {
	r := newDiskRig(t, mkdir(t, dir))
	r.await("before", http.StatusOK)
	filler := r.fill(2 << 20)
	r.await("nearly", http.StatusServiceUnavailable)
	r.awaitReadyz(http.StatusServiceUnavailable)
	r.scrape("nearly")
	kv, err := r.js.KeyValue(t.Context(), contracts.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), "lead.1", []byte("{}")); err != nil {
		t.Errorf("the state can't be written though the reserve is free: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	r.await("again", http.StatusOK)
	r.awaitReadyz(http.StatusOK)
	r.whole()
	if n := r.metric("store_restarts_total"); n != "0" {
		t.Errorf("the server was started anew %s times", n)
	}
}

// The reserve is jumped over: nats-server meets the full disk, and from then on stores
// nothing, whatever room there is. It is started anew when there is room.
func whollyFull(t *testing.T, dir string) {
	r := newDiskRig(t, mkdir(t, dir))
	r.await("before", http.StatusOK)
	r.scrape("well")

	// Webhooks come all the time.
	ctx, cancel := context.WithCancel(t.Context())
	var traffic sync.WaitGroup
	defer traffic.Wait()
	defer cancel()
	for w := range 4 {
		traffic.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				r.send(fmt.Sprintf("evt_traffic_%d_%d", w, i))
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	filler := r.fill(0)
	r.breakStore(contracts.SubjectStripe("test"))
	r.breakStore(contracts.SubjectOfKey("lead.2"))
	r.await("wholly", http.StatusServiceUnavailable)
	r.awaitReadyz(http.StatusServiceUnavailable)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	roomy := time.Now()
	r.await("again", http.StatusOK)
	t.Logf("stores again %v after there was room", time.Since(roomy).Round(time.Millisecond))
	cancel()
	traffic.Wait()
	r.awaitReadyz(http.StatusOK)
	r.whole()
	r.scrape("again")
	if n := r.metric("store_restarts_total"); n == "0" {
		t.Error("the server was not started anew: it did not meet the full disk")
	}
	// The state can be written too, by a client that was connected before.
	kv, err := r.js.KeyValue(t.Context(), contracts.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), "lead.3", []byte("{}")); err != nil {
		t.Errorf("the state can't be written again: %v", err)
	}
}

// A program that starts on a full disk waits for room.
func startOnFull(t *testing.T, dir string) {
	filler := (&diskRig{t: t, dir: mkdir(t, dir)}).fill(0)
	freed := make(chan error, 1)
	go func() {
		time.Sleep(time.Second)
		freed <- os.Remove(filler)
	}()
	r := newDiskRig(t, dir) // ready
	if err := <-freed; err != nil {
		t.Fatal(err)
	}
	r.await("after", http.StatusOK)
}

// breakStore publishes past the edge until the server can't store.
func (r *diskRig) breakStore(subject string) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(r.t.Context(), 500*time.Millisecond)
		_, err := r.js.Publish(ctx, subject, make([]byte, 64<<10), jetstream.WithRetryAttempts(0))
		cancel()
		if err != nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal("the full disk takes everything")
		}
	}
}

func (r *diskRig) metric(name string) string {
	r.t.Helper()
	return alerttest.Get(r.t, "edge", r.url).Value(name)
}

func mkdir(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	return dir
}
