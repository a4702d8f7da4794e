package daemon_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"leadpipe/internal/natstest"
	"leadpipe/internal/webhook/stripe"
)

// A secured server asks for TLS and knows its users by the keys of an operator, as one that
// nsc sets up, or Synadia's cloud.
type secured struct {
	url   string // tls://…
	ca    string // file of the authority that signed its certificate
	creds string // file of a user
}

func newSecured(t *testing.T) secured {
	t.Helper()
	dir := t.TempDir()
	ca, cert := certificate(t, filepath.Join(dir, "ca.pem"))
	operator, account, system := keys(t, nkeys.CreateOperator), keys(t, nkeys.CreateAccount), keys(t, nkeys.CreateAccount)
	user := keys(t, nkeys.CreateUser)

	accounts := &server.MemAccResolver{}
	for _, a := range []nkeys.KeyPair{account, system} {
		claims := jwt.NewAccountClaims(public(t, a))
		claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1}
		if a == system {
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{}
		}
		token, err := claims.Encode(operator)
		if err != nil {
			t.Fatal(err)
		}
		if err := accounts.Store(public(t, a), token); err != nil {
			t.Fatal(err)
		}
	}
	token, err := jwt.NewUserClaims(public(t, user)).Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		t.Fatal(err)
	}
	s := secured{ca: ca, creds: filepath.Join(dir, "edge.creds")}
	if err := os.WriteFile(s.creds, creds, 0o600); err != nil {
		t.Fatal(err)
	}
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: natstest.Port(t), NoLog: true, NoSigs: true, JetStream: true, StoreDir: filepath.Join(dir, "store"), SyncAlways: true,
		MaxPayload: 4 << 20, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, TLSTimeout: 10,
		TrustedOperators: []*jwt.OperatorClaims{jwt.NewOperatorClaims(public(t, operator))}, AccountResolver: accounts, SystemAccount: public(t, system),
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server did not start")
	}
	s.url = fmt.Sprintf("tls://127.0.0.1:%d", srv.Addr().(*net.TCPAddr).Port)
	return s
}

func keys(t *testing.T, create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	t.Helper()
	k, err := create()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func public(t *testing.T, k nkeys.KeyPair) string {
	t.Helper()
	p, err := k.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// certificate makes an authority, whose certificate goes into a file, and a certificate of
// its own for 127.0.0.1.
func certificate(t *testing.T, file string) (ca string, cert tls.Certificate) {
	t.Helper()
	sign := func(isCA bool, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, IsCA: isCA, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
		if parent == nil {
			parent, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c, key
	}
	authority, authorityKey := sign(true, nil, nil)
	leaf, leafKey := sign(false, authority, authorityKey)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: leafKey}
}

// edge is the program with an environment.
func edge(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "edge")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// TestTLSAndCredentials: with the authority's certificate and a user's credentials the edge
// stores webhooks; without the certificate, its check and its log say what is wrong.
func TestTLSAndCredentials(t *testing.T) {
	t.Parallel()
	s := newSecured(t)
	addr := natstest.Addr(t)
	env := []string{"NATS_URL=" + s.url, "NATS_CREDS=" + s.creds, "SSL_CERT_FILE=" + s.ca, "SSL_CERT_DIR=" + t.TempDir(), "EDGE_ADDR=" + addr, "STRIPE_WEBHOOK_SECRET=whsec_1"}
	stop := startEdge(t, edge(t, env), nil)
	await(t, "the edge is ready", func() bool {
		res, err := http.Get("http://" + addr + "/readyz")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	body := []byte(`{"id":"evt_1","object":"event","type":"invoice.paid","data":{"object":{"id":"in_1"}}}`)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/api/webhooks/stripe", bytes.NewReader(body))
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
	if res.StatusCode != http.StatusOK {
		t.Errorf("the webhook was answered %d", res.StatusCode)
	}
	if out, err := edge(t, env, "check").CombinedOutput(); !bytes.Contains(out, []byte("NATS: logs in with NATS_CREDS")) || bytes.Contains(out, []byte("FAIL  NATS")) {
		t.Errorf("%v\n%s", err, out)
	}
	stop()

	other, _ := certificate(t, filepath.Join(t.TempDir(), "other.pem"))
	env = append(env, "SSL_CERT_FILE="+other)
	out, err := edge(t, env, "check").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("FAIL")) || !bytes.Contains(out, []byte("certificate signed by unknown authority")) {
		t.Errorf("a server of an unknown authority: %v\n%s", err, out)
	}
	var log lines
	stop = startEdge(t, edge(t, env), &log)
	defer stop()
	await(t, "the log says why there is no connection", func() bool {
		return strings.Contains(log.String(), "certificate signed by unknown authority")
	})
}

// startEdge starts the program; stop ends it, which has to go well.
func startEdge(t *testing.T, cmd *exec.Cmd, log *lines) (stop func()) {
	t.Helper()
	if log == nil {
		log = &lines{}
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the edge ended: %v\n%s", err, log)
		}
	})
	t.Cleanup(stop)
	return stop
}

func await(t *testing.T, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !met(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute still not: %s", what)
		}
	}
}

// lines takes what a program prints, while it is read.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
