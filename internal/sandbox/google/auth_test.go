package google_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/api/option"
	api "google.golang.org/api/sheets/v4"

	"leadpipe/internal/sandbox/google"
)

func TestServiceAccount(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{NotShared: []string{"private"}})
	file, err := b.CredentialsJSON(b.url)
	must(t, err)
	with := func(opts ...option.ClientOption) *api.SpreadsheetsService {
		return newClient(t, b.url, append(opts, option.WithAuthCredentialsJSON(option.ServiceAccount, file))...)
	}
	before := b.Stats().Tokens
	sheets := with(option.WithScopes(api.SpreadsheetsScope))
	for range 3 {
		_, err = sheets.Get("book").Do()
		must(t, err)
	}
	if n := b.Stats().Tokens - before; n != 1 {
		t.Errorf("%d tokens for three calls", n)
	}
	_, err = sheets.Get("private").Do()
	wantError(t, "not shared", err, 403, "The caller does not have permission")
	_, err = sheets.Get("nope").Do()
	wantError(t, "unknown id", err, 404, "Requested entity was not found.")
	_, err = with(option.WithScopes("https://www.googleapis.com/auth/calendar")).Get("book").Do()
	wantError(t, "other scope", err, 403, "Request had insufficient authentication scopes.")
	_, err = with(option.WithHTTPClient(http.DefaultClient), option.WithScopes(api.SpreadsheetsScope)).Get("book").Do()
	wantError(t, "an HTTP client overrides credentials", err, 403, "unregistered callers")
	_, err = newClient(t, b.url, option.WithoutAuthentication()).Get("book").Do()
	wantError(t, "no token", err, 403, "unregistered callers")
	b.RevokeTokens()
	_, err = sheets.Get("book").Do()
	wantError(t, "revoked", err, 401, "invalid authentication credentials")
	if status, body := b.raw(t, "GET", "/v4/spreadsheets/book", "ya29.made-up", ""); status != 401 || !strings.Contains(body, `"status":"UNAUTHENTICATED"`) {
		t.Errorf("unknown token: HTTP %d %s", status, body)
	}
}

func TestTokenExpires(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{TokenTTL: 1}) // nanosecond
	_, err := b.client.Get("book").Do()
	wantError(t, "expired", err, 401, "invalid authentication credentials")
}

func TestTokenEndpointRefuses(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	file, err := b.CredentialsJSON(b.url + "/")
	must(t, err)
	var account map[string]string
	must(t, json.Unmarshal(file, &account))
	block, _ := pem.Decode([]byte(account["private_key"]))
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	key := parsed.(*rsa.PrivateKey)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)

	type claims map[string]any
	ask := func(grant string, key *rsa.PrivateKey, header, change claims) (int, string) {
		now := time.Now().Unix()
		h := claims{"alg": "RS256", "typ": "JWT", "kid": account["private_key_id"]}
		c := claims{"iss": account["client_email"], "scope": api.SpreadsheetsScope, "aud": account["token_uri"], "iat": now, "exp": now + 3600}
		for k, v := range header {
			h[k] = v
		}
		for k, v := range change {
			c[k] = v
		}
		part := func(v any) string {
			text, err := json.Marshal(v)
			must(t, err)
			return base64.RawURLEncoding.EncodeToString(text)
		}
		signed := part(h) + "." + part(c)
		sum := sha256.Sum256([]byte(signed))
		signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
		must(t, err)
		resp, err := http.PostForm(b.url+"/token", url.Values{"grant_type": {grant},
			"assertion": {signed + "." + base64.RawURLEncoding.EncodeToString(signature)}})
		must(t, err)
		defer resp.Body.Close()
		var answer struct{ Error string }
		must(t, json.NewDecoder(resp.Body).Decode(&answer))
		return resp.StatusCode, answer.Error
	}
	const grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	if status, code := ask(grant, key, nil, nil); status != 200 || code != "" {
		t.Fatalf("right assertion: HTTP %d %s", status, code)
	}
	now := time.Now().Unix()
	cases := map[string]struct {
		grant          string
		key            *rsa.PrivateKey
		header, change claims
		code           string
	}{
		"signed by another key": {grant, other, nil, nil, "invalid_grant"},
		"other key id":          {grant, key, claims{"kid": "x"}, nil, "invalid_grant"},
		"no algorithm":          {grant, key, claims{"alg": "none"}, nil, "invalid_grant"},
		"other account":         {grant, key, nil, claims{"iss": "other@example.com"}, "invalid_grant"},
		"other audience":        {grant, key, nil, claims{"aud": "https://example.com/token"}, "invalid_grant"},
		"expired":               {grant, key, nil, claims{"iat": now - 3700, "exp": now - 100}, "invalid_grant"},
		"from the future":       {grant, key, nil, claims{"iat": now + 600, "exp": now + 1200}, "invalid_grant"},
		"longer than an hour":   {grant, key, nil, claims{"exp": now + 7200}, "invalid_grant"},
		"no scope":              {grant, key, nil, claims{"scope": ""}, "invalid_scope"},
		"other grant type":      {"password", key, nil, nil, "unsupported_grant_type"},
	}
	before := b.Stats().Tokens
	for name, c := range cases {
		if status, code := ask(c.grant, c.key, c.header, c.change); status != 400 || code != c.code {
			t.Errorf("%s: HTTP %d %q; want %q", name, status, code, c.code)
		}
	}
	if n := b.Stats().Tokens; n != before {
		t.Errorf("%d tokens were given out", n-before)
	}
}
