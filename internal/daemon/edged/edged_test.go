package edged_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"leadpipe/internal/daemon"
	"leadpipe/internal/daemon/edged"
	"leadpipe/internal/natstest"
	"leadpipe/internal/webhook/stripe"
)

// config is a configuration whose ports are free and whose files are the test's own.
func config(t *testing.T) edged.Config {
	t.Helper()
	conf, err := os.ReadFile(natstest.Root(t, "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("port: 4222", "port: -1", `http: "127.0.0.1:8222"`, `http: "127.0.0.1:-1"`).Replace(string(conf))
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := natstest.Addr(t)
	return edged.Config{
		Addr: addr, PublicURL: "http://" + addr, NATS: daemon.NATS{Replicas: 1}, Conf: file, StoreDir: t.TempDir(),
		StripeSecrets: daemon.Secrets{"whsec_1"}, StripeTolerance: 5 * time.Minute, PublishTimeout: 2 * time.Second, Region: "FR",
	}
}

// running starts an edge and waits until it is ready; stop drains it.
func running(t *testing.T, cfg edged.Config) (url string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- edged.Run(ctx, cfg, nil, daemon.NewLogger(io.Discard)) }()
	t.Cleanup(cancel)
	url = "http://" + cfg.Addr
	deadline := time.Now().Add(20 * time.Second)
	for get(url+"/readyz") != 200 {
		select {
		case err := <-ended:
			t.Fatalf("ended: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("not ready after 20 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return url, func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			t.Fatal("not drained within 20 s")
			return nil
		}
	}
}

func get(url string) int {
	res, err := http.Get(url)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

func post(t *testing.T, url, id string) int {
	t.Helper()
	body := []byte(`{"id":"` + id + `","object":"event","type":"invoice.paid","data":{"object":{"id":"in_1"}}}`)
	req, err := http.NewRequest(http.MethodPost, url+"/api/webhooks/stripe", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Stripe-Signature", stripe.Sign(body, time.Now(), "whsec_1"))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

func TestInProcessServerStoresAndDrainsAndStartsAgain(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	for range 2 { // the second time on the files of the first
		url, stop := running(t, cfg)
		if status := post(t, url, "evt_1"); status != 200 {
			t.Errorf("status %d", status)
		}
		if status := get(url + "/api/webhooks/facebook"); status != 404 {
			t.Errorf("a provider without a secret: %d", status)
		}
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// Somebody who does not finish a request does not keep the edge from ending well.
func TestUnfinishedRequestDoesNotHoldTheEnd(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	url, stop := running(t, cfg)
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "POST /api/webhooks/stripe HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	if err := stop(); err != nil || time.Since(start) > 10*time.Second {
		t.Errorf("Run: %v after %v", err, time.Since(start))
	}
}

// Without its server the edge answers 503, and it takes webhooks again once that is back.
func TestServerComesAndGoes(t *testing.T) {
	t.Parallel()
	s := natstest.New(t)
	cfg := config(t)
	cfg.URL = s.Nodes[0].URL() // without a user: its name and password are the edge's
	cfg.PublishTimeout = 500 * time.Millisecond
	url, stop := running(t, cfg)
	if status := post(t, url, "evt_1"); status != 200 {
		t.Errorf("status %d", status)
	}
	s.Nodes[0].Stop()
	if status := post(t, url, "evt_2"); status != 503 {
		t.Errorf("without a server: %d", status)
	}
	s.Start(0)
	deadline := time.Now().Add(20 * time.Second)
	for post(t, url, "evt_2") != 200 {
		if time.Now().After(deadline) {
			t.Fatal("webhooks are not taken again")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// On a server where nothing has been created yet, the edge takes webhooks, and leaves
// the rest to the consumers.
func TestTheEdgeMayStartFirst(t *testing.T) {
	t.Parallel()
	s := natstest.New(t, natstest.Bare)
	cfg := config(t)
	cfg.URL = s.Nodes[0].URL()
	url, stop := running(t, cfg)
	deadline := time.Now().Add(20 * time.Second)
	for post(t, url, "evt_1") != 200 {
		if time.Now().After(deadline) {
			t.Fatal("no webhook is taken")
		}
		time.Sleep(20 * time.Millisecond)
	}
	var names []string
	for name := range s.JetStream("operator").StreamNames(t.Context()).Name() {
		names = append(names, name)
	}
	if len(names) != 1 || names[0] != "WEBHOOKS" {
		t.Errorf("streams: %q", names)
	}
	s.Apply()
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestWrongPasswordEndsTheProgramWithoutShowingIt(t *testing.T) {
	t.Parallel()
	s := natstest.New(t)
	cfg := config(t)
	cfg.URL = strings.Replace(s.Nodes[0].URL(), "nats://", "nats://edge:sesame@", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := edged.Run(ctx, cfg, nil, daemon.NewLogger(io.Discard))
	if err == nil || ctx.Err() != nil || strings.Contains(err.Error(), "sesame") || !strings.Contains(strings.ToLower(err.Error()), "authorization") {
		t.Errorf("Run: %v", err)
	}
}
