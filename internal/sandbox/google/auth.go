package google

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	api "google.golang.org/api/sheets/v4"
)

const (
	tokenPath = "/token"
	keyID     = "0123456789abcdef0123456789abcdef01234567"
	project   = "100000000001"
	// ServiceAccount is the address that a spreadsheet would be shared with.
	ServiceAccount = "crm-writer@sandbox.example.com"
)

// An account is the service account's key, made when it is first needed.
type account struct {
	once sync.Once
	key  *rsa.PrivateKey
	err  error
}

func (a *account) private() (*rsa.PrivateKey, error) {
	a.once.Do(func() { a.key, a.err = rsa.GenerateKey(rand.Reader, 2048) })
	return a.key, a.err
}

// A token is what a client may do, and until when.
type token struct {
	expires time.Time
	scopes  []string
}

// CredentialsJSON is a service account's key file, whose tokens come from the stand-in
// itself: baseURL is where it is served, e.g. http://127.0.0.1:8080. The key is made
// fresh for each Server, and is the same each time.
func (s *Server) CredentialsJSON(baseURL string) ([]byte, error) {
	key, err := s.account.private()
	if err != nil {
		return nil, fmt.Errorf("making a service account's key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("writing a service account's key: %w", err)
	}
	file, err := json.MarshalIndent(map[string]string{
		"type": "service_account", "project_id": "sandbox", "private_key_id": keyID,
		"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email": ServiceAccount, "client_id": project,
		"token_uri": strings.TrimSuffix(baseURL, "/") + tokenPath, "universe_domain": "googleapis.com",
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing a service account's file: %w", err)
	}
	return file, nil
}

// Token gives an access token without asking, for callers that bring their own client.
func (s *Server) Token() string { return s.issue([]string{api.SpreadsheetsScope}) }

// RevokeTokens makes every access token given out so far invalid. The client library
// does not notice: it goes on with the one it has until that one's time is up.
func (s *Server) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

func (s *Server) issue(scopes []string) string {
	value := "ya29." + rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[value] = token{time.Now().Add(s.opt.TokenTTL), scopes}
	s.stats.Tokens++
	return value
}

// authorize checks a call's token.
func (s *Server) authorize(header string) error {
	value, ok := strings.CutPrefix(header, "Bearer ")
	if !ok {
		return &problem{Code: http.StatusForbidden, Status: "PERMISSION_DENIED",
			Message: "Method doesn't allow unregistered callers (callers without established identity)."}
	}
	s.mu.Lock()
	t, ok := s.tokens[value]
	s.mu.Unlock()
	if !ok || !time.Now().Before(t.expires) {
		return &problem{Code: http.StatusUnauthorized, Status: "UNAUTHENTICATED",
			Message: "Request had invalid authentication credentials. Expected OAuth 2 access token."}
	}
	if !slices.Contains(t.scopes, api.SpreadsheetsScope) && !slices.Contains(t.scopes, api.DriveScope) {
		return &problem{Code: http.StatusForbidden, Status: "PERMISSION_DENIED", Message: "Request had insufficient authentication scopes."}
	}
	return nil
}

// serveToken exchanges a signed assertion for an access token.
// https://developers.google.com/identity/protocols/oauth2/service-account
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	scopes, code, why := s.assertion(r)
	if code != "" {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": why})
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"access_token": s.issue(scopes), "token_type": "Bearer", "expires_in": int(s.opt.TokenTTL.Seconds())})
}

// assertion checks a request for a token, and gives the scopes that it asks for, or
// OAuth's code of what is wrong.
func (s *Server) assertion(r *http.Request) (scopes []string, code, why string) {
	if r.Method != http.MethodPost || r.ParseForm() != nil {
		return nil, "invalid_request", "a form must be posted"
	}
	if r.PostForm.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		return nil, "unsupported_grant_type", "only signed assertions are taken"
	}
	parts := strings.Split(r.PostForm.Get("assertion"), ".")
	if len(parts) != 3 {
		return nil, "invalid_grant", "Bad Request"
	}
	var header struct{ Alg, Kid string }
	var claims struct {
		Iss, Scope, Aud string
		Iat, Exp        int64
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	key, keyErr := s.account.private()
	if err != nil || keyErr != nil || !decodePart(parts[0], &header) || !decodePart(parts[1], &claims) {
		return nil, "invalid_grant", "Bad Request"
	}
	if header.Alg != "RS256" || header.Kid != keyID || rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], signature) != nil {
		return nil, "invalid_grant", "Invalid JWT Signature."
	}
	if claims.Iss != ServiceAccount {
		return nil, "invalid_grant", "Invalid grant: account not found"
	}
	if aud, err := url.Parse(claims.Aud); err != nil || aud.Host != r.Host || aud.Path != tokenPath {
		return nil, "invalid_grant", "Invalid JWT: the audience is not this endpoint"
	}
	now, skew := time.Now(), 5*time.Minute
	issued, expires := time.Unix(claims.Iat, 0), time.Unix(claims.Exp, 0)
	if issued.After(now.Add(skew)) || !expires.After(now) || expires.Sub(issued) > time.Hour || claims.Iat == 0 {
		return nil, "invalid_grant", "Invalid JWT: Token must be a short-lived token and in a reasonable timeframe"
	}
	if claims.Scope == "" {
		return nil, "invalid_scope", "Empty or missing scope not allowed."
	}
	return strings.Fields(claims.Scope), "", ""
}

func decodePart(s string, v any) bool {
	b, err := base64.RawURLEncoding.DecodeString(s)
	return err == nil && json.Unmarshal(b, v) == nil
}
