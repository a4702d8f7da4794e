//go:build browser

package sandbox_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/chromedp"

	"leadpipe/contracts"
	"leadpipe/internal/natstest"
)

// TestBrowserUnderLoad looks at a real consumers process with 100,000 records and 50
// webhooks a second, beside one without a console: what the console costs, how soon the
// page is there, and what the browser keeps. LOAD_MINUTES says how long, 10 by itself.
func TestBrowserUnderLoad(t *testing.T) {
	if os.Getenv("STRESS") == "" {
		t.Skip("ten minutes of load: make stress-browser")
	}
	minutes := 10
	if n, err := strconv.Atoi(os.Getenv("LOAD_MINUTES")); err == nil {
		minutes = n
	}
	server := natstest.New(t, natstest.LazySync)
	js := server.JetStream("operator")
	put := func(subject, body string) {
		if _, err := js.PublishAsync(subject, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	record := func(i int) string {
		return fmt.Sprintf(`{"id":"%d","name":"Zoé Martin","phone":"+336399%05d","status":"new","email":"zoe%d@example.com","form_id":"100000000000202","page_id":"100000000000101"}`, i, i%100000, i)
	}
	for i := range 100_000 {
		put(contracts.SubjectOfKey(fmt.Sprintf("lead.%d", i)), record(i))
		if i%1000 == 0 {
			<-js.PublishAsyncComplete()
		}
	}
	<-js.PublishAsyncComplete()

	bin := filepath.Join(t.TempDir(), "consumers")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "leadpipe/cmd/consumers")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	addr := natstest.Addr(t)
	run := func(console string) int {
		cmd := exec.Command(bin, "billing")
		cmd.Env = append(os.Environ(), "NATS_URL="+server.URL("consumers"), "METRICS_ADDR=127.0.0.1:0", "CONSOLE_ADDR="+console)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() })
		return cmd.Process.Pid
	}
	without, with := run(""), run(addr)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if res, err := http.Get("http://" + addr + "/"); err == nil {
			_ = res.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no console")
		}
	}

	ctx, stop := context.WithCancel(t.Context())
	loaded := make(chan int)
	go func() {
		n := 0
		defer func() { loaded <- n }()
		for tick := time.NewTicker(20 * time.Millisecond); ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			id := fmt.Sprint(n % 100_000)
			put(contracts.SubjectFacebookLeadgen, `{"leadgen_id":"`+id+`","page_id":"100000000000101","form_id":"100000000000202"}`)
			for _, status := range []string{"queued", "sending", "sent"} {
				put(contracts.SubjectOfKey("sms.welcome."+id), fmt.Sprintf(`{"kind":"welcome","to":"+336399%05d","status":%q,"body":"Bonjour","sent_at":%q}`, n%100000, status, time.Now().UTC().Format(time.RFC3339)))
			}
			put(contracts.SubjectOfKey("lead."+id), strings.Replace(record(n%100_000), `"new"`, fmt.Sprintf(`"contacted","n":%d`, n), 1))
		}
	}()

	time.Sleep(3 * time.Second)
	p := visitAny(t, "http://"+addr, "en-US", 1440, "light")
	p.await(`document.querySelectorAll(".webhook").length === 50`)
	p.await(`performance.getEntriesByName("first-contentful-paint").length`)
	paint := evaluate[float64](p, `performance.getEntriesByName("first-contentful-paint")[0].startTime`)
	t.Logf("first paint after %.0f ms", paint)
	if paint > 1000 {
		t.Errorf("first paint after %.0f ms", paint)
	}
	heap := func() float64 {
		p.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
			_, err := cdp.Call(ctx, t, heapprofiler.CollectGarbage, cdp.Empty{})
			return chromedp.Void{}, err
		})
		return evaluate[float64](p, `performance.memory.usedJSHeapSize / 1048576`)
	}
	time.Sleep(20 * time.Second)
	first := heap()
	var last float64
	for m := 1; m <= minutes; m++ {
		time.Sleep(time.Minute)
		last = heap()
		t.Logf("minute %d: browser %.1f MB; consumers %.1f MB, with the console %.1f MB; %d elements", m, last, rss(t, without), rss(t, with),
			evaluate[int](p, `document.querySelectorAll("*").length`))
	}
	if last > first+3 {
		t.Errorf("the browser's memory went from %.1f to %.1f MB", first, last)
	}
	if more := rss(t, with) - rss(t, without); more > 30 {
		t.Errorf("the console takes %.1f MB", more)
	}
	stop()
	t.Logf("%d webhooks", <-loaded)
	p.calm()
}

// rss is a process's resident memory in MB.
func rss(t *testing.T, pid int) float64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("this machine does not tell a process's memory")
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb / 1024
}
